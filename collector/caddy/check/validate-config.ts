/** Whether JSON has the shape of a configuration of Caddy, as far as the check reads it. */
import { netAddress } from './log-routing.js';

/** What belongs at a place. `null` may stand anywhere, as Caddy has it. */
type Shape =
  | { readonly kind: 'an object'; readonly keys?: Readonly<Record<string, Shape>>; readonly each?: Shape }
  | { readonly kind: 'an array'; readonly each: Shape }
  | { readonly kind: 'a text' | 'true or false' | 'a number or a text such as "1s"' | 'a text or an array of texts' };

const text: Shape = { kind: 'a text' };
const flag: Shape = { kind: 'true or false' };
const texts: Shape = { kind: 'an array', each: text };
const objects: Shape = { kind: 'an array', each: { kind: 'an object' } };

const configuration: Shape = object({
  logging: object({
    logs: each(
      object({
        writer: object({ output: text, soft_start: flag, dial_timeout: { kind: 'a number or a text such as "1s"' } }),
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
            logger_names: each({ kind: 'a text or an array of texts' }),
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

/**
 * Go reads JSON to this depth and no further (`maxNestingDepth` in encoding/json/scanner.go), so Caddy has no deeper
 * configuration.
 */
const depthMax = 10_000;

/**
 * The first place where something else stands than Caddy takes, in words: `/logging is the number 5, and must be an
 * object`.
 */
export function findMisshapen(config: unknown): string | undefined {
  if (depthOf(config) > depthMax)
    return `it is nested deeper than ${depthMax.toLocaleString('en')} levels, and Caddy reads no more than that`;
  if (config === null) return 'it is null, and must be an object';
  return misshapen(config, configuration, '') ?? misaddressed(config);
}

function misshapen(value: unknown, shape: Shape, path: string): string | undefined {
  if (value === null || value === undefined) return undefined;
  if (!fits(value, shape)) return `${path === '' ? 'it' : path} is ${described(value)}, and must be ${shape.kind}`;
  const parts: readonly (readonly [string, unknown, Shape | undefined])[] =
    shape.kind === 'an array'
      ? (value as readonly unknown[]).map((part, at) => [String(at), part, shape.each])
      : shape.kind === 'an object'
        ? Object.entries(value).map(([key, part]) => [key, part, shape.each ?? own(shape.keys, key)])
        : [];
  for (const [key, part, inner] of parts) {
    const found = inner === undefined ? undefined : misshapen(part, inner, `${path}/${key}`);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** `output net` needs an address: without one nobody could tell which sink is meant, and Caddy does not start. */
function misaddressed(config: unknown): string | undefined {
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
      return `/logging/logs/${name}/writer/address is ${described(address)}, and must be an address such as "tcp/127.0.0.1:9514"`;
    }
  }
  return undefined;
}

function fits(value: unknown, { kind }: Shape): boolean {
  if (kind === 'an object') return typeof value === 'object' && !Array.isArray(value);
  if (kind === 'an array') return Array.isArray(value);
  if (kind === 'true or false') return typeof value === 'boolean';
  if (kind === 'a text') return typeof value === 'string';
  if (kind === 'a number or a text such as "1s"') return typeof value === 'number' || typeof value === 'string';
  return typeof value === 'string' || (Array.isArray(value) && value.every((each) => typeof each === 'string'));
}

function described(value: unknown): string {
  if (value === undefined) return 'missing';
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'object') return 'an object';
  if (typeof value === 'string')
    return `the text ${JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value)}`;
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
