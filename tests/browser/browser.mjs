// What the tests here share: the packages of the build directory, a browser, a directory of their own.
import {mkdtempSync, rmSync} from 'node:fs';
import {createRequire} from 'node:module';
import {tmpdir} from 'node:os';
import {join} from 'node:path';

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
