//! Compiles the auctioneer's interface file a second time, messages only: the auditor decodes for itself.

use std::error::Error;

use protox::Compiler;

/// Root of the interface files.
const ROOT: &str = "../../crates/wire/proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={ROOT}/poolrpc/auctioneer.proto");
    let mut compiler = Compiler::new([ROOT])?;
    compiler.include_imports(true).open_files(["poolrpc/auctioneer.proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .btree_map(".")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
