// Runs a WebAssembly module with WASI on Node.js: run.mjs MODULE ARGUMENTS...
import { readFileSync } from "node:fs";
import { argv } from "node:process";
import { WASI } from "node:wasi";

const wasi = new WASI({ version: "preview1", args: argv.slice(2), preopens: { ".": "." } });
const { instance } = await WebAssembly.instantiate(readFileSync(argv[2]), wasi.getImportObject());
wasi.start(instance);
