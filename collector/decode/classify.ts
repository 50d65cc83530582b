/** Tells Caddy's access log from its other log lines, and from lines of other programs. */
import { firstWritten, leadingMax, leadingValues } from './entry-fields.js';
import { isLevel, isObject, type Entry } from './split-encoding.js';
import { readTimeText } from './time.js';

/**
 * The logger of an access line, or `''` if the line does not name it; `undefined` for any other line. Only
 * `http.log.access` and `http.log.access.NAME` write access lines; their debug lines ("rejecting request with long
 * method") have no request. Without a name, the structure decides.
 */
export function accessLoggerOf({ fields, columns, text }: Entry): string | undefined {
  const { logger, request, status, size } = fields;
  if (isAccessLogger(logger))
    return request === undefined && status === undefined && size === undefined ? undefined : logger;
  if (!isObject(request) || status === undefined || size === undefined) return undefined;
  if (fields['err_id'] !== undefined || fields['upstream'] !== undefined) return undefined;
  const renamed = [...columns, ...leadingValues(fields)].find(isAccessLogger);
  if (renamed !== undefined) return renamed;
  if (typeof logger !== 'string') return '';
  // `log_append logger …` overrides the name that Caddy wrote.
  const first = firstWritten('logger', text);
  return isAccessLogger(first) ? first : undefined;
}

function isAccessLogger(value: unknown): value is string {
  return typeof value === 'string' && value.startsWith('http.log.access') && (value.length === 15 || value[15] === '.');
}

/**
 * Whether the object comes from an unsupported encoder: ECS, GELF, or one that nests or renames the keys of a request.
 */
export function hasUnknownEncoder({ fields }: Entry): boolean {
  if (fields['ecs.version'] !== undefined || isObject(fields['ecs']) || fields['log.level'] !== undefined) return true;
  if (fields['short_message'] !== undefined && fields['version'] !== undefined) return true;
  if (typeof fields['logger'] === 'string' || fields['err_id'] !== undefined || fields['upstream'] !== undefined)
    return false;
  return Object.values(fields)
    .slice(0, leadingMax * 2)
    .includes('handled request');
}

/** Whether text that is not JSON describes a request, such as logfmt. */
export function isUnknownText(line: string): boolean {
  return /(?:^|\s)(?:logger|name|msg|message)="?(?:http\.log\.access|handled request)/.test(line);
}

/** Whether a logger of Caddy wrote the line: it has at least two of level, time, logger and message, under any key. */
export function isRuntimeLog({ fields, columns }: Entry): boolean {
  const values = [...columns, ...leadingValues(fields)];
  const signs = [
    values.some((value) => typeof value === 'string' && isLevel(value)),
    values.some((value) =>
      typeof value === 'number'
        ? value > 1e9
        : typeof value === 'string' && readTimeText(value, (wallMs) => wallMs, undefined) !== undefined,
    ),
    typeof fields['logger'] === 'string',
    typeof fields['msg'] === 'string',
    columns.length > 1,
  ];
  return signs.filter((sign) => sign).length >= 2;
}
