//! Runs a program as `isomorph java` does, without the rest of the command.

fn main() {
    std::process::exit(jvm::launcher::main(std::env::args().skip(1).collect(), None, |_| ()))
}
