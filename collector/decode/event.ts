/** Decodes what Caddy logs besides requests: errors, certificates, health checks, starts and reloads. */
import { caddyLevels, eventFieldsLengthMax, type CaddyLevel, type CaddyEvent } from '../../shared/caddy-event.js';
import { nameLengthMax } from '../../shared/record/bounds.js';
import type { ErrorReport, RequestIdentity } from '../correlate.js';
import { statusOf, textOf } from './entry-fields.js';
import { normaliseHost } from './host.js';
import type { JsonObject } from './json-object.js';
import { readMax, reasonOf, upstreamIn, withoutSecrets } from './reason.js';
import { isSecretName, redactSecrets } from './redact.js';
import { isLevel, isObject, type Entry } from './split-encoding.js';
import type { Time } from './time.js';

/** A decoded line of any logger except those of access lines. */
export interface DecodedEvent {
  /** `undefined` if the line is of no use: a debug message, or routine housekeeping. */
  readonly event: CaddyEvent | undefined;
  /** What the line says about a request, and which. */
  readonly report: (ErrorReport & { readonly identity: RequestIdentity }) | undefined;
}

/** Maximum length of the value of another field. */
const fieldLengthMax = 300;

/** Loggers whose `info` messages are routine: certificate maintenance, redirects, Caddy's own events. */
const routineLoggers = /^(?:tls\.cache|http\.auto_https|events|pki|docker_proxy)(?:\.|$)/;
/** Routine messages of loggers that also have useful ones. */
const routineMessages =
  /^(?:storage cleaning|finished cleaning storage|cleaning storage|received request$|stopped previous|admin endpoint)/;

/** Fields that have a property of their own, that repeat the request, or that are about Caddy's source. */
const ownFields = new Set([
  'level',
  'ts',
  'logger',
  'msg',
  'error',
  'request',
  'status',
  'identifier',
  'err_id',
  'upstream',
  'err_trace',
]);

/** Decodes a line that is not an access line, at the given time. */
export function decodeEvent({ fields, columns }: Entry, { timeMs, timeNs }: Time): DecodedEvent {
  const level = levelOf(fields['level'], columns);
  const written = readColumns(columns);
  const logger = (textOf(fields['logger']) || written.logger).slice(0, nameLengthMax);
  const message = textOf(fields['msg']) || written.message;
  const error = textOf(fields['error']);
  const request = isObject(fields['request']) ? fields['request'] : undefined;
  const status = statusOf(fields['status']) ?? 0;
  const isErrorLine = isNamed(logger, 'http.log.error');
  const isUseful =
    level === 'debug'
      ? isErrorLine && status >= 500
      : level !== 'info' || isErrorLine || !(routineLoggers.test(logger) || routineMessages.test(message));
  const isReport = request !== undefined && (isErrorLine || error !== '');
  if (!isUseful && !isReport) return { event: undefined, report: undefined };

  const client = request && {
    clientIp: textOf(request['client_ip']),
    remoteIp: textOf(request['remote_ip']),
    remotePort: textOf(request['remote_port']),
  };
  const cause = isErrorLine ? message : error;
  const [cleanMessage, cleanError] = [withoutSecrets(message, client), withoutSecrets(error, client)];
  const reason =
    isErrorLine && message === ''
      ? emptyReason(status)
      : reasonOf(isErrorLine || error === '' ? cleanMessage : cleanError);
  const upstream = upstreamOf(fields, logger) || upstreamIn(cause, client);
  const errorId = textOf(fields['err_id']).slice(0, nameLengthMax);
  const isFinal = isErrorLine || message === 'aborting with incomplete response';
  // Caddy logs no duration in the access line of a response that breaks off.
  const duration = isErrorLine ? fields['duration'] : isFinal ? 0 : undefined;
  return {
    report: !isReport
      ? undefined
      : {
          identity: identityOf(request, fields, duration),
          timeMs,
          error: reason,
          errorId,
          upstream,
          isFinal,
        },
    event: !isUseful
      ? undefined
      : {
          timeMs,
          timeNs,
          level,
          logger,
          message: cleanMessage,
          error: cleanError,
          reason,
          host: normaliseHost((textOf(request?.['host']) || textOf(fields['identifier'])).slice(0, nameLengthMax)),
          method: textOf(request?.['method']).slice(0, nameLengthMax),
          uri: redactSecrets(textOf(request?.['uri']).slice(0, readMax)),
          status,
          errorId,
          upstream,
          fields: otherFields(fields),
        },
  };
}

/** Returns what identifies a request in its access line, too. */
export function identityOf(request: JsonObject, fields: JsonObject, duration: unknown): RequestIdentity {
  return {
    remoteIp: textOf(request['remote_ip']),
    remotePort: textOf(request['remote_port']),
    method: textOf(request['method']),
    host: textOf(request['host']),
    uri: textOf(request['uri']),
    status: statusOf(fields['status']) ?? 0,
    duration: typeof duration === 'number' || typeof duration === 'string' ? duration : undefined,
  };
}

/** The directive `error` logs no message. */
function emptyReason(status: number): string {
  return status === 0 ? 'error without a message' : `error ${status} without a message`;
}

function upstreamOf(fields: JsonObject, logger: string): string {
  // The health checker names the upstream `host`.
  const value = logger.includes('.health_checker.') ? fields['host'] : fields['upstream'];
  return textOf(value).slice(0, nameLengthMax);
}

function isNamed(logger: string, name: string): boolean {
  return logger === name || logger.startsWith(`${name}.`);
}

const levels = new Set<string>(caddyLevels);

function levelOf(value: unknown, columns: readonly string[]): CaddyLevel {
  const text = typeof value === 'string' ? value : columns.find(isLevel);
  // eslint-disable-next-line no-control-regex -- console encoders colour the level
  const name = text?.replace(/\u001b\[\d*m/g, '').toLowerCase();
  return name !== undefined && levels.has(name) ? (name as CaddyLevel) : name === 'dpanic' ? 'panic' : 'info';
}

/** Names of Caddy's loggers, and the beginnings of others. */
const loggerName =
  /^(?:(?:http|tls|admin|pki|events|storage|docker_proxy|layer4|dynamic_dns|frankenphp)|[a-z]\w*(?:\.\w+)+)$/;

/** The console encoder writes the logger after the level, if it has a name, and then the message. */
function readColumns(columns: readonly string[]): { readonly logger: string; readonly message: string } {
  const [first = '', ...rest] = columns.slice(columns.findIndex(isLevel) + 1);
  const hasLogger = rest.length > 0 && loggerName.test(first);
  return hasLogger ? { logger: first, message: rest.join(' ') } : { logger: '', message: [first, ...rest].join(' ') };
}

/** The remaining fields as JSON, bounded, without secrets. Values of objects and lists are left out. */
function otherFields(fields: JsonObject): string {
  const found: Record<string, string | number | boolean> = {};
  let length = 2;
  for (const [name, value] of Object.entries(fields)) {
    if (ownFields.has(name) || isSecretName(name)) continue;
    const short = typeof value === 'string' ? withoutSecrets(value).slice(0, fieldLengthMax) : value;
    if (typeof short !== 'string' && typeof short !== 'number' && typeof short !== 'boolean') continue;
    const size = JSON.stringify({ [name]: short }).length;
    if (length + size > eventFieldsLengthMax) continue;
    length += size;
    found[name] = short;
  }
  return Object.keys(found).length === 0 ? '' : JSON.stringify(found);
}
