// What the tests here share: the packages of the build directory, a browser, a directory of their own.
import {mkdtempSync, rmSync} from 'node:fs';
import {createRequire} from 'node:module';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {inflateSync} from 'node:zlib';

export const build = process.env.PYPROF_BUILD, source = process.env.PYPROF_SOURCE;

// A static import looks beside this file; the packages are installed in the build directory.
export const require = createRequire(join(build, 'package.json'));

export const directory = mkdtempSync(join(tmpdir(), 'pyprof-browser-'));
process.on('exit', () => rmSync(directory, {recursive: true, force: true}));

export function launch() {
  return require('playwright-core').chromium.launch({
    executablePath: process.env.PYPROF_CHROMIUM,
    chromiumSandbox: false,
    args: ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
           '--disable-component-update', '--disable-sync'],
  });
}

// The colours of a PNG's pixels (8 bits, RGB or RGBA), as a function of x and y.
export function decode(png) {
  let width, height, channels;
  const parts = [];
  for (let at = 8; at < png.length; at += 12 + png.readUInt32BE(at)) {
    const size = png.readUInt32BE(at), kind = png.toString('latin1', at + 4, at + 8), data = png.subarray(at + 8, at + 8 + size);
    if (kind === 'IHDR') [width, height, channels] = [data.readUInt32BE(0), data.readUInt32BE(4), data[9] === 6 ? 4 : 3];
    if (kind === 'IDAT') parts.push(data);
  }
  const raw = inflateSync(Buffer.concat(parts)), line = width * channels, pixels = Buffer.alloc(line * height);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (line + 1)];
    for (let i = 0; i < line; i++) {
      const left = i < channels ? 0 : pixels[y * line + i - channels], up = y ? pixels[(y - 1) * line + i] : 0;
      const corner = y && i >= channels ? pixels[(y - 1) * line + i - channels] : 0, guess = left + up - corner;
      const near = [left, up, corner].reduce((best, one) => Math.abs(guess - one) < Math.abs(guess - best) ? one : best);
      const add = [0, left, up, (left + up) >> 1, near][filter];
      pixels[y * line + i] = raw[y * (line + 1) + 1 + i] + add;
    }
  }
  return {width, height, colour: (x, y) => pixels.readUIntBE((y * width + x) * channels, 3).toString(16).padStart(6, '0')};
}
