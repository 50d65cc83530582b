/** Validates the parts of Caddy's JSON configuration that the check reads. */
import { netAddress } from './log-routing.js';

/** Expected type of a value. `null` is allowed anywhere, as in Caddy. */
type Shape =
  | { readonly kind: 'an object'; readonly keys?: Readonly<Record<string, Shape>>; readonly each?: Shape }
  | { readonly kind: 'an array'; readonly each: Shape }
  | {
      readonly kind:
        | 'a string'
        | 'true or false'
        | 'a number or a string such as "1s"'
        | 'a string or an array of strings';
    };

const text: Shape = { kind: 'a string' };
const flag: Shape = { kind: 'true or false' };
const texts: Shape = { kind: 'an array', each: text };
const objects: Shape = { kind: 'an array', each: { kind: 'an object' } };

const configuration: Shape = object({
  logging: object({
    logs: each(
      object({
        writer: object({ output: text, soft_start: flag, dial_timeout: { kind: 'a number or a string such as "1s"' } }),
        encoder: object({ format: text, wrap: object({}), fields: object({}), time_format: text }),
        level: text,
        include: texts,
        exclude: texts,
        sampling: object({}),
      }),
    ),
  }),
  apps: object({
    http: object({
      servers: each(
        object({
          logs: object({
            default_logger_name: text,
            logger_names: each({ kind: 'a string or an array of strings' }),
            skip_hosts: texts,
            skip_unmapped_hosts: flag,
          }),
          routes: {
            kind: 'an array',
            each: object({ match: { kind: 'an array', each: object({ host: texts }) }, handle: objects }),
          },
        }),
      ),
    }),
  }),
});

/** Maximum nesting depth that Go's JSON decoder accepts (`maxNestingDepth` in encoding/json/scanner.go). */
const depthMax = 10_000;

/**
 * Returns a description of the first value that Caddy would not accept, such as `/logging is the number 5, but must be
 * an object`; `undefined` if there is none.
 */
export function findInvalidValue(config: unknown): string | undefined {
  if (depthOf(config) > depthMax)
    return `it is nested deeper than ${depthMax.toLocaleString('en')} levels, which Caddy cannot read`;
  if (config === null) return 'it is null, but must be an object';
  return invalidValue(config, configuration, '') ?? invalidAddress(config);
}

function invalidValue(value: unknown, shape: Shape, path: string): string | undefined {
  if (value === null || value === undefined) return undefined;
  if (!fits(value, shape)) return `${path === '' ? 'it' : path} is ${describe(value)}, but must be ${shape.kind}`;
  const parts: readonly (readonly [string, unknown, Shape | undefined])[] =
    shape.kind === 'an array'
      ? (value as readonly unknown[]).map((part, at) => [String(at), part, shape.each])
      : shape.kind === 'an object'
        ? Object.entries(value).map(([key, part]) => [key, part, shape.each ?? own(shape.keys, key)])
        : [];
  for (const [key, part, inner] of parts) {
    const found = inner === undefined ? undefined : invalidValue(part, inner, `${path}/${key}`);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Checks the address of each `output net`: without a valid one, Caddy does not start. */
function invalidAddress(config: unknown): string | undefined {
  const { logging } = config as {
    logging?: {
      logs?: Readonly<Record<string, { writer?: { output?: string; address?: unknown } | null } | null>> | null;
    } | null;
  };
  for (const [name, logger] of Object.entries(logging?.logs ?? {})) {
    const { output, address } = logger?.writer ?? {};
    if (output !== 'net') continue;
    const { port, network } = netAddress(typeof address === 'string' ? address : '');
    if (typeof address !== 'string' || (port === '' && !network.startsWith('unix') && !address.includes('{'))) {
      return `/logging/logs/${name}/writer/address is ${describe(address)}, but must be an address such as "tcp/127.0.0.1:9514"`;
    }
  }
  return undefined;
}

function fits(value: unknown, { kind }: Shape): boolean {
  if (kind === 'an object') return typeof value === 'object' && !Array.isArray(value);
  if (kind === 'an array') return Array.isArray(value);
  if (kind === 'true or false') return typeof value === 'boolean';
  if (kind === 'a string') return typeof value === 'string';
  if (kind === 'a number or a string such as "1s"') return typeof value === 'number' || typeof value === 'string';
  return typeof value === 'string' || (Array.isArray(value) && value.every((each) => typeof each === 'string'));
}

function describe(value: unknown): string {
  if (value === undefined) return 'missing';
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'object') return 'an object';
  if (typeof value === 'string')
    return `the string ${JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value)}`;
  return typeof value === 'number' ? `the number ${value}` : JSON.stringify(value);
}

function depthOf(config: unknown): number {
  let level: unknown[] = [config];
  for (let depth = 0; ; depth += 1) {
    const next: unknown[] = [];
    for (const value of level) {
      if (typeof value === 'object' && value !== null) for (const part of Object.values(value)) next.push(part);
    }
    if (next.length === 0) return depth;
    if (depth > depthMax) return depth;
    level = next;
  }
}

function object(keys: Readonly<Record<string, Shape>>): Shape {
  return { kind: 'an object', keys };
}

function each(shape: Shape): Shape {
  return { kind: 'an object', each: shape };
}

function own(keys: Readonly<Record<string, Shape>> | undefined, key: string): Shape | undefined {
  return keys !== undefined && Object.hasOwn(keys, key) ? keys[key] : undefined;
}
