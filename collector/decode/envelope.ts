/** What a line says, whatever its encoder. */
export interface Entry {
  readonly fields: JsonObject;
  /** What the console encoder writes before the fields: time, level, logger and message, as far as they are not switched off. */
  readonly columns: readonly string[];
}

/** An object out of JSON. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** Whether a value out of JSON is an object. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const none: readonly string[] = [];
const columnsMax = 8;
const attemptsMax = 4;
/** `line_ending` may be any text: so much of it may stand around a line, in characters. */
const surroundingsMax = 64;

/** Takes a line apart. `not-json` and `not-caddy` say why that cannot be done. */
export function readEntry(line: string): Entry | 'not-json' | 'not-caddy' {
  const value = parse(line);
  if (value !== undefined) return isObject(value) ? { fields: value, columns: none } : 'not-caddy';
  const rest = withoutPriority(line);
  return readConsole(rest) ?? readSurrounded(rest) ?? 'not-json';
}

/** `undefined` when the text is not JSON: no text of JSON has that value. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** The `journald` encoder writes `<6>` before what another encoder wrote. */
function withoutPriority(line: string): string {
  return /^<[0-7]>/.test(line) ? line.slice(3) : line;
}

/** Columns between TABs, the last of them the fields when there are any. */
function readConsole(line: string): Entry | undefined {
  if (!line.includes('\t')) return undefined;
  let at = line.indexOf('\t{');
  for (let attempt = 0; at !== -1 && attempt < attemptsMax; attempt += 1) {
    const fields = parse(line.slice(at + 1)) ?? parse(withoutEnding(line.slice(at + 1)));
    if (isObject(fields)) return { fields, columns: columnsOf(line.slice(0, at)) };
    at = line.indexOf('\t{', at + 1);
  }
  const columns = columnsOf(line);
  return columns.some(isLevel) ? { fields: {}, columns } : undefined;
}

function columnsOf(text: string): string[] {
  return text.split('\t', columnsMax);
}

/** JSON with a priority before it, or with what a `line_ending` left before and after it. */
function readSurrounded(line: string): Entry | undefined {
  const from = line.slice(0, surroundingsMax + 1).indexOf('{');
  if (from === -1) return undefined;
  const fields = parse(withoutEnding(line.slice(from)));
  return isObject(fields) ? { fields, columns: none } : undefined;
}

function withoutEnding(text: string): string {
  const to = text.lastIndexOf('}') + 1;
  return text.length - to <= surroundingsMax ? text.slice(0, to) : text;
}

/** Whether a text is a log level in one of zap's ways to write it: lower case, upper case, or coloured. */
export function isLevel(text: string): boolean {
  // eslint-disable-next-line no-control-regex -- colours are control characters
  return text.length <= 20 && /^(?:\u001b\[\d+m)?(?:debug|info|warn|error|dpanic|panic|fatal)(?:\u001b\[0m)?$/i.test(text);
}
