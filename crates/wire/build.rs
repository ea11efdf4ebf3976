//! Compiles the interface files without `protoc`: protox parses them, tonic and prost write the Rust.

use std::{env, error::Error, fs, path::PathBuf};

use protox::Compiler;
use tonic_prost_build::Builder;

/// Folder of the interface files, and the root of the imports inside them.
const ROOT: &str = "proto";

/// Both sides of these run in this program: the trader calls, the venue serves.
const POOL: &[&str] = &["poolrpc/auctioneer.proto"];

/// These are only ever called.
const LND: &[&str] =
    &["lnd/chainrpc.proto", "lnd/lnrpc.proto", "lnd/signrpc.proto", "lnd/verrpc.proto", "lnd/walletrpc.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={ROOT}");

    builder().build_server(true).compile_fds(compiler(POOL)?.file_descriptor_set())?;
    builder().build_server(false).compile_fds(compiler(LND)?.file_descriptor_set())?;

    let mut all = compiler(&[POOL, LND].concat())?;
    all.include_source_info(false);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?);
    fs::write(out.join("descriptors.bin"), all.encode_file_descriptor_set())?;
    Ok(())
}

/// Parses `files`; their comments become documentation of the generated types.
fn compiler(files: &[&str]) -> Result<Compiler, protox::Error> {
    let mut compiler = Compiler::new([ROOT])?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    Ok(compiler)
}

/// What all generated code has in common.
///
/// Maps are ordered, so that equal messages have equal bytes. No `connect` constructors: the shell
/// brings the connection (pinned certificate, macaroon), and this package needs no transport.
/// A server may leave methods out; a caller then gets `UNIMPLEMENTED`.
fn builder() -> Builder {
    tonic_prost_build::configure().build_client(true).build_transport(false).generate_default_stubs(true).btree_map(".")
}
