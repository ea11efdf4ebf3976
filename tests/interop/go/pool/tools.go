//go:build tools

// Package pool pins the deployed Pool client that the interop test trades with and is judged by.
package pool

import (
	_ "github.com/lightninglabs/pool/cmd/pool"
	_ "github.com/lightninglabs/pool/cmd/poold"
)
