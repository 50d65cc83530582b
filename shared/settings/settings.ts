import { readFileSync } from 'node:fs';
import { parseEnv } from 'node:util';
import ipaddr from 'ipaddr.js';
import { messageOf, UsageError } from '../errors.js';

/** A setting: how its text is parsed, its default, and its help text. */
export interface Setting<Value> {
  /** Text of the default; `undefined` if there is none. */
  readonly default: string | undefined;
  /** Allowed values, for error messages: `a whole number of at least 1`. */
  readonly allowed: string;
  readonly help: string;
  /** Whether the value may be a secret. If so, no message contains it. */
  readonly secret?: boolean;
  /** Throws if the text is not allowed. */
  readonly parse: (text: string) => Value;
}

/** Settings by name. */
export type SettingTable = Readonly<Record<string, Setting<unknown>>>;

/** Typed values of a table, by name. A setting without a default may be `undefined`. */
export type SettingValues<Table extends SettingTable> = {
  readonly [Name in keyof Table]: Table[Name] extends Setting<infer Value> ? Value : never;
};

/** Texts by name, as in `process.env`. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads the settings of a table. An empty text counts as not set. Throws a `UsageError` with the name of the setting,
 * its value and what is allowed.
 */
export function readSettings<Table extends SettingTable>(table: Table, environment: Environment): SettingValues<Table> {
  const values = Object.entries(table).map(([name, setting]) => {
    const text = environment[name]?.trim() || setting.default;
    if (text === undefined) return [name, undefined];
    try {
      return [name, setting.parse(text)];
    } catch (error) {
      const reason = error instanceof RangeError ? ` ${error.message}` : '';
      const seen =
        setting.secret === true ? 'cannot be used (its value is not shown here)' : `is ${JSON.stringify(text)}`;
      throw new UsageError(`${name} ${seen}: it must be ${setting.allowed}.${reason}`);
    }
  });
  return Object.fromEntries(values) as SettingValues<Table>;
}

/**
 * Merges the environment over the files; a later file overrides an earlier one. An empty value counts as not set and
 * overrides nothing. Throws a `UsageError` for a file that cannot be read.
 */
export function withEnvFiles(environment: Environment, files: readonly string[]): Environment {
  return Object.assign({}, ...[...files.map(readEnvFile), environment].map(withoutEmpty)) as Environment;
}

function withoutEmpty(environment: Environment): Environment {
  return Object.fromEntries(Object.entries(environment).filter(([, value = '']) => value.trim() !== ''));
}

/**
 * Checks for misspelt settings. Throws a `UsageError` for an unknown name in a file. Returns a warning for each name in
 * the environment that is close to a setting: other programs have variables there too, and theirs must not stop the
 * start.
 */
export function checkNames(known: readonly string[], environment: Environment, files: readonly string[]): string[] {
  for (const name of files.flatMap((file) => Object.keys(readEnvFile(file)))) {
    if (known.includes(name)) continue;
    const nearest = nearestOf(known, name, fileTypoLettersMax);
    throw new UsageError(
      `${name} is not a setting${nearest === undefined ? '.' : `; did you mean ${nearest}?`} --help lists all settings.`,
    );
  }
  // Short names such as STORE resemble too many variables of other programs.
  const longNames = known.filter((name) => name.includes('_'));
  return Object.keys(environment)
    .filter((name) => !known.includes(name))
    .flatMap((name) => {
      const nearest = nearestOf(longNames, name, environmentTypoLettersMax);
      return nearest === undefined
        ? []
        : [`${name} in the environment is not a setting and is ignored; did you mean ${nearest}?`];
    });
}

/** Maximum edit distance of a typo. */
const fileTypoLettersMax = 3;
const environmentTypoLettersMax = 2;

function nearestOf(known: readonly string[], name: string, lettersMax: number): string | undefined {
  const distances = known.map((candidate) => ({ candidate, letters: distance(candidate, name) }));
  return distances
    .filter(({ letters }) => letters <= lettersMax)
    .toSorted((one, other) => one.letters - other.letters)[0]?.candidate;
}

/** Any text. */
export function text(help: string, options: { default: string }): Setting<string>;
export function text(help: string): Setting<string | undefined>;
export function text(help: string, options: { default?: string } = {}): Setting<string | undefined> {
  return { default: options.default, allowed: 'a text', help, parse: (value) => value };
}

/** One of several words. */
export function choice<const Word extends string>(
  help: string,
  words: readonly Word[],
  options: { default: Word },
): Setting<Word> {
  return {
    default: options.default,
    allowed: `one of ${words.join(', ')}`,
    help,
    parse: (value) => words.find((word) => word === value) ?? refuse(),
  };
}

/** `true` or `false`. */
export function flag(help: string): Setting<boolean> {
  const words = choice(help, ['true', 'false'], { default: 'false' });
  return { ...words, parse: (value) => words.parse(value) === 'true' };
}

/** A whole number. */
export function count(help: string, options: { default: string; min: number; max: number }): Setting<number> {
  const { min, max } = options;
  return {
    default: options.default,
    allowed: `a whole number from ${min} to ${max}`,
    help,
    parse: (value) =>
      /^\d{1,15}$/.test(value) && Number(value) >= min && Number(value) <= max ? Number(value) : refuse(),
  };
}

/** A fraction from 0 to 1. */
export function ratio(help: string, options: { default: string }): Setting<number> {
  return {
    default: options.default,
    allowed: 'a number from 0 to 1, such as 0.01 for one in a hundred',
    help,
    parse: (value) => (/^(?:0(?:\.\d{1,9})?|1(?:\.0{1,9})?)$/.test(value) ? Number(value) : refuse()),
  };
}

const byteUnits: Readonly<Record<string, number>> = {
  B: 1,
  kB: 1e3,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

/** A size in bytes, with a unit. */
export function bytes(help: string, options: { default: string; min: string; max: string }): Setting<number>;
export function bytes(help: string, options: { min: string; max: string }): Setting<number | undefined>;
export function bytes(
  help: string,
  options: { default?: string; min: string; max: string },
): Setting<number | undefined> {
  const read = (value: string): number => quantity(value, byteUnits);
  return {
    default: options.default,
    allowed: `a size from ${options.min} to ${options.max}, such as ${options.default ?? options.min} (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)`,
    help,
    parse: (value) => within(read(value), read(options.min), read(options.max)),
  };
}

const durationUnits: Readonly<Record<string, number>> = { ms: 1, s: 1e3, m: 6e4, h: 3.6e6, d: 8.64e7 };

/** A duration in milliseconds, with a unit. */
export function duration(help: string, options: { default: string; min: string; max: string }): Setting<number> {
  const read = (value: string): number => quantity(value, durationUnits);
  return {
    default: options.default,
    allowed: `a duration from ${options.min} to ${options.max}, such as ${options.default} (ms, s, m, h, d)`,
    help,
    parse: (value) => within(read(value), read(options.min), read(options.max)),
  };
}

/** HTTP listen address. An empty host means every address. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

/** `host:port`, with IPv6 in brackets. An empty host means every address, port 0 any free port. */
export function address(help: string, options: { default: string }): Setting<Address> {
  return {
    default: options.default,
    allowed: 'host:port, such as 127.0.0.1:3000, [::1]:3000 or :3000',
    help,
    parse: parseAddress,
  };
}

/** Parses `host:port`. Throws if the text has another form. */
export function parseAddress(value: string): Address {
  const match = /^(?:\[([\da-f:.]+)\]|([^\s:[\]/]*)):(\d{1,5})$/i.exec(value);
  if (match === null || Number(match[3]) > 65_535) return refuse();
  if (match[1] !== undefined && !ipaddr.IPv6.isValid(match[1])) return refuse();
  return { host: match[1] ?? match[2] ?? '', port: Number(match[3]) };
}

/** Formats `host:port`, with IPv6 in brackets. */
export function formatAddress({ host, port }: Address): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/** Whether the host is a loopback address. */
export function isLoopback(host: string): boolean {
  if (host === 'localhost') return true;
  return ipaddr.isValid(host) && ipaddr.process(host).range() === 'loopback';
}

/** An `http` or `https` URL. */
export function url(help: string): Setting<string | undefined> {
  return {
    default: undefined,
    allowed: 'an http or https URL, such as http://127.0.0.1:8086',
    help,
    parse: (value) =>
      URL.canParse(value) && /^https?:$/.test(new URL(value).protocol) ? value.replace(/\/+$/, '') : refuse(),
  };
}

/** A comma-separated list of values. */
export function list<Value>(
  help: string,
  options: { default: string; allowed: string; parse: (item: string) => Value },
): Setting<readonly Value[]> {
  return {
    default: options.default,
    allowed: options.allowed,
    help,
    parse: (value) => value.split(',').map((item) => options.parse(item.trim())),
  };
}

function refuse(): never {
  throw new TypeError('not allowed');
}

function within(value: number, min: number, max: number): number {
  return value >= min && value <= max ? value : refuse();
}

function quantity(value: string, units: Readonly<Record<string, number>>): number {
  const match = /^(\d{1,15}(?:\.\d{1,9})?) ?([A-Za-z]+)$/.exec(value);
  const unit = match?.[2] === undefined ? undefined : units[match[2]];
  return unit === undefined ? refuse() : Math.round(Number(match![1]) * unit);
}

function readEnvFile(file: string): Environment {
  try {
    const content = readFileSync(file, 'utf8');
    const incomplete = content.split('\n').find((line) => /^\s*\w+\s*$/.test(line));
    if (incomplete !== undefined) throw new Error(`the line ${JSON.stringify(incomplete.trim())} has no value`);
    return parseEnv(content);
  } catch (error) {
    throw new UsageError(
      `Cannot read the settings file ${file}: ${messageOf(error)}. Give --env-file a file with lines of NAME=value.`,
      { cause: error },
    );
  }
}

/** Levenshtein distance. */
function distance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, at) => at);
  for (const [line, letter] of Array.from(from).entries()) {
    const next = [line + 1];
    for (let at = 1; at <= to.length; at += 1) {
      next.push(Math.min(next[at - 1]! + 1, row[at]! + 1, row[at - 1]! + (letter === to[at - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[to.length]!;
}
