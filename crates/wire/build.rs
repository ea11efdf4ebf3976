//! Compiles the interface files without `protoc`: protox parses them, tonic and prost write the Rust.

use std::fmt::Write;
use std::{env, error::Error, fs, path::PathBuf};

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};
use protox::Compiler;
use tonic_prost_build::Builder;

/// Folder of the interface files, and the root of the imports inside them.
const ROOT: &str = "proto";

/// Both sides of these run in this program: the trader calls, the venue serves; the operator calls, the agent serves.
const POOL: &[&str] =
    &["poolrpc/auctioneer.proto", "poolrpc/trader.proto", "poolrpc/hashmail.proto", "tidegate/v1/agent.proto"];

/// These are only ever called.
const LND: &[&str] =
    &["lnd/chainrpc.proto", "lnd/lnrpc.proto", "lnd/signrpc.proto", "lnd/verrpc.proto", "lnd/walletrpc.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={ROOT}");

    let pool = compiler(POOL)?.file_descriptor_set();
    let shapes: String = pool.file.iter().map(shapes).collect();
    // Anybody may send these: they are decoded within a limit.
    builder().build_server(true).codec_path("crate::bounded::BoundedCodec").compile_fds(pool)?;
    builder().build_server(false).compile_fds(compiler(LND)?.file_descriptor_set())?;

    let mut all = compiler(&[POOL, LND].concat())?;
    all.include_source_info(false);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?);
    fs::write(out.join("descriptors.bin"), all.encode_file_descriptor_set())?;
    fs::write(out.join("shapes.rs"), shapes)?;
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

/// `impl Shaped` for every message of a file.
fn shapes(file: &FileDescriptorProto) -> String {
    let module = format!("crate::{}", file.package().replace('.', "::"));
    file.message_type.iter().map(|message| shape(message, &module)).collect()
}

/// `impl Shaped` for a message and those inside it: what its fields hold, by number.
fn shape(message: &DescriptorProto, module: &str) -> String {
    let name = message.name();
    let mut text = format!("impl Shaped for {module}::{name} {{\n");
    text.push_str("    const SHAPE: Shape = Shape { size: size_of::<Self>(), fields: &[\n");
    for field in &message.field {
        let (number, choice) = (field.number(), choice(message, field));
        writeln!(text, "        ({number}, {choice}, {}),", content(message, field)).expect("texts do not fail");
    }
    text.push_str("    ] };\n}\n");
    let inner = format!("{module}::{}", snake_case(name));
    let nested = message.nested_type.iter().filter(|nested| !is_map_entry(nested));
    text.extend(nested.map(|nested| shape(nested, &inner)));
    text
}

/// The number by which a field is found twice: its own, or the first one of those of which a message has one at most.
fn choice(message: &DescriptorProto, field: &FieldDescriptorProto) -> i32 {
    let rivals = message.field.iter().filter(|rival| rival.oneof_index.is_some());
    let rivals = rivals.filter(|rival| rival.oneof_index == field.oneof_index).map(FieldDescriptorProto::number);
    rivals.min().unwrap_or_else(|| field.number())
}

/// The `Content` of a field, as an expression.
fn content(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let repeated = field.label() == Label::Repeated;
    match field.r#type() {
        Type::Message => {
            let entry = message.nested_type.iter().find(|nested| is_map_entry(nested) && is_named(field, nested));
            match entry {
                Some(entry) => {
                    let value = entry.field.iter().find(|field| field.number() == 2).expect("a map has values");
                    format!("Content::Map(&{})", content(entry, value))
                }
                None => format!("Content::Message({repeated}, &<{} as Shaped>::SHAPE)", rust_path(field.type_name())),
            }
        }
        Type::String | Type::Bytes => format!("Content::Bytes({repeated})"),
        _ => format!("Content::Number({repeated})"),
    }
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

fn is_named(field: &FieldDescriptorProto, message: &DescriptorProto) -> bool {
    field.type_name().rsplit('.').next() == Some(message.name())
}

/// `.poolrpc.Outer.Inner` is `crate::poolrpc::outer::Inner`.
fn rust_path(type_name: &str) -> String {
    let (modules, name) = type_name.trim_start_matches('.').rsplit_once('.').expect("messages are in a package");
    let modules: String = modules.split('.').map(|module| snake_case(module) + "::").collect();
    format!("crate::{modules}{name}")
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}
