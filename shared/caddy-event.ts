/** Something that Caddy logged besides requests. Unknown text is `''`, so that every event has the same shape. */
export interface CaddyEvent {
  /** In whole milliseconds since 1970 in UTC. */
  readonly timeMs: number;
  /** Nanoseconds within `timeMs`: 0 to 999,999. */
  readonly timeNs: number;
  readonly level: CaddyLevel;
  /** Such as `http.log.error.log0` or `tls.obtain`; `''` for Caddy's unnamed logger. */
  readonly logger: string;
  readonly message: string;
  /** The field `error`. */
  readonly error: string;
  /** Why something failed, without what varies between events of one cause: see `collector/decode/reason.ts`. */
  readonly reason: string;
  /** Host of the request, or the name of the certificate. */
  readonly host: string;
  readonly method: string;
  /** Request target, without the values of its query. */
  readonly uri: string;
  /** HTTP status; 0 if there is none. */
  readonly status: number;
  /** Caddy's id of the error. */
  readonly errorId: string;
  /** `HOST:PORT` or path of the upstream. */
  readonly upstream: string;
  /** The other fields, as JSON of at most `eventFieldsLengthMax` characters; `''` if there are none. */
  readonly fields: string;
}

/** Levels of Caddy's log (zap), in ascending order. */
export const caddyLevels = ['debug', 'info', 'warn', 'error', 'panic', 'fatal'] as const;
/** One of them. */
export type CaddyLevel = (typeof caddyLevels)[number];

/** Maximum length of an event's message, error and reason, in UTF-16 code units. */
export const eventTextLengthMax = 500;

/** Maximum length of `CaddyEvent.fields`, in UTF-16 code units. */
export const eventFieldsLengthMax = 1000;
