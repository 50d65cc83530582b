import type { JsonObject } from './json-object.js';
import { readCommonLog } from './common-log.js';

/** A parsed line, independent of its encoder. */
export interface Entry {
  readonly fields: JsonObject;
  /** Columns that the console encoder writes before the fields: time, level, logger and message, unless disabled. */
  readonly columns: readonly string[];
  /** The JSON that Caddy wrote, without prefix or envelope. */
  readonly text: string;
}

/** Whether a JSON value is an object. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Keys under which log shippers put a line: Docker, Fluent Bit, Vector, Filebeat, journald, Loki, Splunk, CloudWatch,
 * Google Cloud, OpenTelemetry. Other keys are not unwrapped, since clients control the values of some of Caddy's own
 * keys.
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
/** Maximum number of braces tried as the start of the JSON in a line. */
const attemptsMax = 8;
/** Maximum length of a custom `line_ending` after a line, in characters. */
const endingMax = 64;
/** Maximum length of the text before the JSON that is searched for console columns, in characters. */
const headMax = 4096;
/** Maximum length of a message that journald's JSON contains as an array, in bytes. */
const bytesMax = 2 ** 20;

/** Parses a line. Returns `not-json` or `not-caddy` if that fails. */
export function readEntry(line: string): Entry | 'not-json' | 'not-caddy' {
  const value = parse(line);
  if (typeof value === 'string') return readText(value) ?? 'not-caddy';
  if (value === undefined) return readText(line) ?? 'not-json';
  return isObject(value) ? unwrapped(value, line) : 'not-caddy';
}

/** Parses JSON. Returns `undefined` for other text. */
export function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/**
 * Returns the line inside an envelope, or the object itself if it is not an envelope. An object with a request never is
 * one.
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

/** Decodes a string or an array of bytes, which journald writes for messages with control characters. */
function textIn(value: unknown): string | undefined {
  if (typeof value === 'string') return value.trimEnd();
  if (!Array.isArray(value) || value.length === 0 || value.length > bytesMax) return undefined;
  return value.every((byte) => Number.isInteger(byte) && byte >= 0 && byte <= 255)
    ? textIn(Buffer.from(value as number[]).toString())
    : undefined;
}

/** Whether an object has the keys of a line of Caddy. */
function isLogEntry({ request, status, level, logger, msg }: JsonObject): boolean {
  return (
    (isObject(request) && status !== undefined) ||
    typeof logger === 'string' ||
    (typeof level === 'string' && typeof msg === 'string')
  );
}

/**
 * Parses a line that is not entirely JSON: Common Log Format, console columns, or JSON after a prefix of any length.
 */
function readText(text: string): Entry | undefined {
  const common = readCommonLog(text);
  if (common !== undefined) return { fields: common, columns: none, text };
  return readPrefixed(text) ?? readColumns(text);
}

/**
 * Parses JSON at the end of a line, or before a `line_ending`. Skips JSON with a quote directly before or after it:
 * it is part of a string, such as a user agent, which clients control.
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

/** Parses a console line without fields. */
function readColumns(text: string): Entry | undefined {
  const columns = columnsOf(text);
  return columns.some(isLevel) ? { fields: {}, columns, text } : undefined;
}

/**
 * Returns the console columns at the end of a text, after any prefix. The prefix may have another time; Caddy's is
 * directly before the level. Some tools replace the tabs between columns with spaces. If Caddy omits the time or the
 * level, only tabs separate columns.
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

/** Matches a time in one of Caddy's formats. */
const time = String.raw`\d{4}(?<dash>[-/])\d\d\k<dash>\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?: ?(?:Z|[+-]\d\d:?\d\d))?|\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}|\d{10}(?:\.\d{1,9})?|\d{13}(?:\.\d{1,9})?|\d{19}|\d\.\d{1,17}e\+(?:09|12)`;
const timeEnding = new RegExp(String.raw`(?:^|[^\d.])(${time})\s*$`);
const timeLengthMax = 48;

function timeAtEnd(text: string): string | undefined {
  return timeEnding.exec(text.slice(-timeLengthMax))?.[1];
}

const level = String.raw`(?:\u001b\[\d+m)?(?:debug|info|warn|error|dpanic|panic|fatal)(?:\u001b\[0m)?`;
const spacedLevel = new RegExp(String.raw`(?<=\s)(${level})(?=\s|$)`, 'gi');
const wholeLevel = new RegExp(`^${level}$`, 'i');

/** Whether a text is a log level in one of zap's formats: lower case, upper case, or coloured. */
export function isLevel(text: string): boolean {
  return text.length <= 20 && wholeLevel.test(text);
}
