import js from '@eslint/js';
import { defineConfig, globalIgnores } from 'eslint/config';
import tseslint from 'typescript-eslint';

// The import rule of the design: collector → shared ← web, never across, never out of shared.
const no = {
  collector: {
    regex: '^[./]+/collector/',
    message: 'Nothing but cli/ and test/ may import from collector/. Move what both need to shared/.',
  },
  web: {
    regex: '^[./]+/web/',
    message: 'Nothing but cli/ and test/ may import from web/. Move what both need to shared/.',
  },
  demo: { regex: '^[./]+/demo/', message: 'Nothing but cli/ and test/ may import from demo/.' },
  program: { regex: '^[./]+/cli/', message: 'cli/ is the program: it imports the parts, not the other way round.' },
  tests: { regex: '^[./]+/test/', message: 'test/ holds what tests need. Only tests may import it.' },
  backends: {
    regex: '(^\\.{1,2}|/store)/(duckdb|influxdb)/',
    message: 'Only shared/store/open.ts names the backends. Use the Store interface.',
  },
  duckdb: { regex: '^@duckdb/', message: 'SQL stays in shared/store/duckdb/.' },
  influxdb: { regex: '^@influxdata/', message: 'Flux and line protocol stay in shared/store/influxdb/.' },
};
const drivers = [no.duckdb, no.influxdb];
const inWeb = [no.collector, no.demo, no.program, no.tests, no.backends, ...drivers];
const later = (stages) => ({
  regex: `^\\.\\./(?:${stages})/`,
  message:
    'The stages of the web app are query, stats and pages, then routes: none imports a later one, and stats is a leaf.',
});
/** Forbids all imports from outside the folder but those of the pattern `allowed`. */
const only = (allowed, message) => ({ regex: `^\\.\\./(?!${allowed})`, message });
const leaf = only('(?:memo|status)\\.js$', 'shared/sketch/ is a leaf: it imports nothing but memo.ts and status.ts.');
const alerts = only(
  'stats/|format\\.js$|\\.\\./shared/',
  'web/alerts/ imports stats/, format.ts and shared/. web.ts gives it what it evaluates.',
);
const sql = String.raw`/\b(?:SELECT\s.*\sFROM|INSERT INTO|DELETE FROM|CREATE TABLE)\b/s`;
const flux = String.raw`/\|>\s*(?:range|filter|keep)\(/`;
const text = (pattern) => `:matches(TemplateElement[value.raw=${pattern}], Literal[value=${pattern}])`;
const restrict = (files, ...patterns) => ({ files, rules: { 'no-restricted-imports': ['error', { patterns }] } });

export default defineConfig(
  globalIgnores(['dist/', 'data/']),
  {
    files: ['**/*.ts'],
    extends: [js.configs.recommended, tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      eqeqeq: 'error',
      // Under noUncheckedIndexedAccess, `counts[at]!` inside a bounded loop is the honest way to read an array.
      '@typescript-eslint/no-non-null-assertion': 'off',
      // Brackets on an index signature show that the key may be missing.
      '@typescript-eslint/dot-notation': ['error', { allowIndexSignaturePropertyAccess: true }],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      // An empty text often means "not set".
      '@typescript-eslint/prefer-nullish-coalescing': ['error', { ignorePrimitives: { string: true } }],
      // `() => socket.destroy()` reads better than a body of three lines.
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/no-empty-function': ['error', { allow: ['arrowFunctions'] }],
      // Objects are mostly closures here: their methods do not use `this`.
      '@typescript-eslint/unbound-method': 'off',
      // `async` alone turns what is thrown into a rejection, as an interface of promises wants it.
      '@typescript-eslint/require-await': 'off',
    },
  },

  {
    files: ['{cli,collector,demo,shared,web}/**/*.ts'],
    ignores: ['shared/store/{duckdb,influxdb,contract}/**', '**/*.test.ts'],
    rules: {
      'no-restricted-syntax': [
        'error',
        { selector: text(sql), message: no.duckdb.message },
        { selector: text(flux), message: no.influxdb.message },
      ],
    },
  },

  // The later block wins where two match the same file.
  restrict(['cli/**/*.ts'], no.tests, no.backends, ...drivers),
  restrict(['dev/**/*.ts'], no.collector, no.web, no.program, no.tests, no.backends, ...drivers),
  restrict(['demo/**/*.ts'], no.collector, no.web, no.program, no.tests, no.backends, ...drivers),
  restrict(['collector/**/*.ts'], no.web, no.demo, no.program, no.tests, no.backends, ...drivers),
  restrict(['web/**/*.ts'], ...inWeb),
  restrict(['web/stats/**/*.ts'], ...inWeb, later('query|pages|routes|alerts|auth|middleware')),
  restrict(['web/query/**/*.ts'], ...inWeb, later('pages|routes|alerts')),
  restrict(['web/pages/**/*.ts'], ...inWeb, later('routes|alerts')),
  restrict(['web/alerts/**/*.ts'], ...inWeb, alerts),
  restrict(['shared/**/*.ts'], no.collector, no.web, no.demo, no.program, no.tests, no.backends, ...drivers),
  restrict(['shared/sketch/**/*.ts'], leaf, ...drivers),
  restrict(['shared/store/open.ts'], no.collector, no.web, no.program, no.tests, ...drivers),
  restrict(['shared/store/duckdb/**/*.ts'], no.collector, no.web, no.program, no.tests, no.backends, no.influxdb),
  restrict(['shared/store/influxdb/**/*.ts'], no.collector, no.web, no.program, no.tests, no.backends, no.duckdb),
  // Tests open real stores and real servers, but keep to their side.
  restrict(['collector/**/*.test.ts'], no.web, ...drivers),
  restrict(['web/**/*.test.ts'], no.collector, ...drivers),
  restrict(['demo/**/*.test.ts'], no.collector, no.web, ...drivers),
  restrict(['shared/**/*.test.ts', 'shared/store/contract/**/*.ts'], no.collector, no.web, ...drivers),
  restrict(['shared/store/duckdb/**/*.test.ts'], no.collector, no.web, no.influxdb),
  restrict(['shared/store/influxdb/**/*.test.ts'], no.collector, no.web, no.duckdb),
);
