//! Compiles the protocol with protox: no `protoc` is needed to build.

/// The files are compiled together: each may import any other.
const FILES: [&str; 6] = [
    "procwarden/v1/admin.proto",
    "procwarden/v1/enrollment.proto",
    "procwarden/v1/finding.proto",
    "procwarden/v1/fleet.proto",
    "procwarden/v1/policy.proto",
    "procwarden/v1/storage.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=procwarden");
    let descriptors = protox::compile(FILES, ["."])?;
    let services = std::env::var_os("CARGO_FEATURE_SERVICES").is_some();
    tonic_prost_build::configure()
        .build_client(services)
        .build_server(services)
        .bytes(".")
        // Two bytes on the wire make an event: a message full of empty ones
        // must not take hundreds of bytes of memory for each.
        .boxed(".procwarden.v1.Event.event.finding")
        .boxed(".procwarden.v1.Event.event.ended")
        .compile_fds(descriptors)?;
    Ok(())
}
