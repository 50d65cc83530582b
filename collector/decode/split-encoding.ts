import { readCommonLog } from './common-log.js';

/** What a line says, whatever its encoder. */
export interface Entry {
  readonly fields: JsonObject;
  /**
   * What the console encoder writes before the fields: time, level, logger and message, as far as they are not switched
   * off.
   */
  readonly columns: readonly string[];
  /** The part of the line that Caddy wrote as JSON; the line itself where nothing was wrapped around it. */
  readonly text: string;
}

/** An object out of JSON. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** Whether a value out of JSON is an object. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Keys under which log shippers put the line that they took: Docker, Fluent Bit, Vector, Filebeat, journald, Loki,
 * Splunk, CloudWatch, Google Cloud, OpenTelemetry. Caddy writes none of them by itself. Others are not unwrapped:
 * strangers choose the texts of some of Caddy's own keys.
 */
export const envelopeKeys = [
  'log',
  'message',
  'MESSAGE',
  'msg',
  'line',
  'Line',
  '@message',
  '_raw',
  'raw',
  'event',
  'body',
  'Body',
  'content',
  'text',
  'data',
  'record',
  'original',
  'log_processed',
  'json',
  'jsonPayload',
  'textPayload',
  'parsed',
] as const;

const none: readonly string[] = [];
const columnsMax = 12;
/** How many braces of a line are tried as the beginning of its JSON. */
const attemptsMax = 8;
/** `line_ending` may be any text: up to this much of it may follow a line, in characters. */
const endingMax = 64;
/** The longest text before the JSON in which console columns are looked for, in characters. */
const headMax = 4096;
/** The longest message that journald's JSON gives as an array, in bytes. */
const bytesMax = 2 ** 20;

/** Takes a line apart. `not-json` and `not-caddy` say why that cannot be done. */
export function readEntry(line: string): Entry | 'not-json' | 'not-caddy' {
  const value = parse(line);
  if (typeof value === 'string') return readText(value) ?? 'not-caddy';
  if (value === undefined) return readText(line) ?? 'not-json';
  return isObject(value) ? unwrapped(value, line) : 'not-caddy';
}

/** `undefined` when the text is not JSON: no text of JSON has that value. */
export function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/**
 * The line inside an envelope, or the object itself where it is none. A line of Caddy's with a request is never an
 * envelope.
 */
function unwrapped(fields: JsonObject, text: string): Entry {
  const own = { fields, columns: none, text };
  if (fields['request'] !== undefined || fields['ecs'] !== undefined) return own;
  for (const key of envelopeKeys) {
    const value = fields[key];
    if (value === undefined || (key === 'msg' && fields['logger'] !== undefined)) continue;
    const inner = textIn(value);
    if (inner === undefined) {
      if (isObject(value) && isLogEntry(value)) return { fields: value, columns: none, text };
      continue;
    }
    const object = inner.includes('{') ? parse(inner) : undefined;
    if (isObject(object)) return { fields: object, columns: none, text: inner };
    const entry = readText(inner);
    if (entry !== undefined) return entry;
  }
  return own;
}

/** A text, or the bytes of one: journald writes a message with control characters as an array. */
function textIn(value: unknown): string | undefined {
  if (typeof value === 'string') return value.trimEnd();
  if (!Array.isArray(value) || value.length === 0 || value.length > bytesMax) return undefined;
  return value.every((byte) => Number.isInteger(byte) && byte >= 0 && byte <= 255)
    ? textIn(Buffer.from(value as number[]).toString())
    : undefined;
}

/** Whether an object is what Caddy's loggers write, as far as its keys tell. */
function isLogEntry({ request, status, level, logger, msg }: JsonObject): boolean {
  return (
    (isObject(request) && status !== undefined) ||
    typeof logger === 'string' ||
    (typeof level === 'string' && typeof msg === 'string')
  );
}

/**
 * Reads a line that is not JSON as a whole: Common Log Format, console columns, or JSON behind a prefix of any length.
 */
function readText(text: string): Entry | undefined {
  const common = readCommonLog(text);
  if (common !== undefined) return { fields: common, columns: none, text };
  return readPrefixed(text) ?? readColumns(text);
}

/**
 * JSON that ends where the line ends, or up to a `line_ending` before that. A quote before its brace, or behind it, is
 * one of a text that holds it, such as a user agent, and strangers choose those.
 */
function readPrefixed(text: string): Entry | undefined {
  const beginnings = text.matchAll(/\{\s*["}]/g);
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    const at = beginnings.next().value?.index;
    if (at === undefined) return undefined;
    if (text[at - 1] === '"' || text[at - 1] === '\\') continue;
    const rest = text.slice(at);
    const fields = parse(rest) ?? parse(withoutEnding(rest));
    if (!isObject(fields)) continue;
    const columns = columnsOf(text.slice(0, at));
    return columns.length > 0 ? { fields, columns, text: rest } : unwrapped(fields, rest);
  }
  return undefined;
}

function withoutEnding(text: string): string {
  const to = text.lastIndexOf('}') + 1;
  return text.length - to <= endingMax && !text.includes('"', to) ? text.slice(0, to) : text;
}

/** A console line without fields. */
function readColumns(text: string): Entry | undefined {
  const columns = columnsOf(text);
  return columns.some(isLevel) ? { fields: {}, columns, text } : undefined;
}

/**
 * Console columns at the end of a text, behind a prefix of any kind, which may have a time of its own: Caddy's stands
 * directly before the level. Some tools turn the TABs between columns into spaces. Where Caddy leaves time or level
 * out, only TABs tell the columns.
 */
function columnsOf(head: string): readonly string[] {
  const end = head.length > headMax ? head.slice(-headMax) : head;
  for (const { 1: level, index, 0: found } of end.matchAll(spacedLevel)) {
    const time = timeAtEnd(end.slice(0, index));
    if (time === undefined) continue;
    const [logger = '', ...message] = end
      .slice(index + found.length)
      .trim()
      .split(/\s+/);
    return [time, level!, logger, message.join(' ')];
  }
  return end.includes('\t')
    ? end
        .split('\t', columnsMax)
        .map((column) => column.trim())
        .filter((column) => column !== '')
    : none;
}

/** A time as Caddy writes it, behind anything but a digit. */
const time = String.raw`\d{4}(?<dash>[-/])\d\d\k<dash>\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?: ?(?:Z|[+-]\d\d:?\d\d))?|\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}|\d{10}(?:\.\d{1,9})?|\d{13}(?:\.\d{1,9})?|\d{19}|\d\.\d{1,17}e\+(?:09|12)`;
const timeEnding = new RegExp(String.raw`(?:^|[^\d.])(${time})\s*$`);
const timeLengthMax = 48;

function timeAtEnd(text: string): string | undefined {
  return timeEnding.exec(text.slice(-timeLengthMax))?.[1];
}

const level = String.raw`(?:\u001b\[\d+m)?(?:debug|info|warn|error|dpanic|panic|fatal)(?:\u001b\[0m)?`;
const spacedLevel = new RegExp(String.raw`(?<=\s)(${level})(?=\s|$)`, 'gi');
const wholeLevel = new RegExp(`^${level}$`, 'i');

/** Whether a text is a log level in one of zap's ways to write it: lower case, upper case, or coloured. */
export function isLevel(text: string): boolean {
  return text.length <= 20 && wholeLevel.test(text);
}
