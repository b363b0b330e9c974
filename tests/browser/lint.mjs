// The picture's script and style, and the tests here, as a linter reads them.
import {require, source} from './browser.mjs';

const {ESLint} = require('eslint');
const js = require('@eslint/js');
const css = require('@eslint/css').default;

const browser = ['document', 'window', 'innerWidth', 'innerHeight', 'scrollX', 'scrollY', 'scrollTo', 'scrollBy',
  'addEventListener', 'matchMedia', 'getComputedStyle', 'requestAnimationFrame', 'setTimeout', 'performance'];
const node = ['process', 'console', 'Buffer', 'URL', 'tall'];
const known = (names) => Object.fromEntries(names.map((name) => [name, 'readonly']));
const rules = {...js.configs.recommended.rules, eqeqeq: 'error', 'no-var': 'error', 'prefer-const': 'error',
  'no-unused-vars': 'error'};

const linter = new ESLint({
  cwd: source,
  overrideConfigFile: true,
  overrideConfig: [
    // In the picture it stands within a function that finds `data`, see flamegraph_put_data().
    {files: ['tools/*.js'], rules: {...rules, 'no-shadow': 'error'}, languageOptions: {sourceType: 'script', globals: known([...browser, 'data'])}},
    {files: ['tests/browser/*.mjs', 'tests/formats/*.mjs'], rules, languageOptions: {globals: known([...browser, ...node])}},
    {files: ['tools/*.css'], plugins: {css}, language: 'css/css', 
      rules: {...css.configs.recommended.rules, 'css/use-baseline': 'off'}},
  ],
});
const results = await linter.lintFiles(['tools/*.js', 'tools/*.css', 'tests/browser/*.mjs', 'tests/formats/*.mjs']);
const formatter = await linter.loadFormatter('stylish');
process.stdout.write(await formatter.format(results));
process.exit(results.length < 6 || results.some((result) => result.errorCount + result.warningCount > 0) ? 1 : 0);
