import type { NetAddress, NetLogger, RequestGroup } from './log-routing.js';

/** Options of `findProblems`. */
export interface CheckOptions {
  /** Returns the id of the sink at an address, which is the same for all its addresses; `undefined` for no sink. */
  readonly sinkAt: (address: NetAddress) => string | undefined;
  /** The sink's address for suggested changes, in Caddy's syntax: `tcp/127.0.0.1:9514`. */
  readonly address: string;
  /** Address of the sink's dashboard, as `host:port`. */
  readonly dashboard: string;
  /** Syntax of the suggested changes. */
  readonly syntax: 'caddyfile' | 'json';
}

/**
 * Effect of a problem: `loses` log lines or requests, `doubles` requests (counted more than once), `blurs` figures
 * (less exact or missing), or a `hint` without effect on the figures.
 */
export type Severity = 'loses' | 'doubles' | 'blurs' | 'hint';

/** A problem in a configuration. */
export interface Finding {
  readonly severity: Severity;
  /** Machine-readable name, such as `no-soft-start`. */
  readonly code: string;
  /** The problem, without a full stop. */
  readonly what: string;
  /** Entry of `logging.logs`; `undefined` for a problem of a site. */
  readonly logger: string | undefined;
  /** Path in Caddy's JSON configuration. */
  readonly path: string;
  /** The affected hosts. `any host` stands for hosts without a separate site. */
  readonly sites: readonly string[];
  /** Why it matters, as a sentence. */
  readonly why: string;
  /** The suggested change: lines of a Caddyfile, or JSON paths with values. */
  readonly change: readonly string[];
}

/** A problem of one logger, relative to the logger's path. */
export interface LoggerProblem extends Pick<Finding, 'severity' | 'code' | 'what' | 'why'> {
  /** Below the logger's own path, such as `/writer/soft_start`. */
  readonly path: string;
  /** The lines inside the Caddyfile's `log` block. */
  readonly caddyfile: readonly string[];
  /** The JSON value to set at the path; `undefined` to remove it. */
  readonly json: unknown;
}

/** A line that a logger sends to the sink for a request. */
export interface Copy {
  readonly logger: NetLogger;
  readonly loggerName: string;
}

/** The lines sent for each request of a group; empty if it is not sent. */
export type Copies = ReadonlyMap<RequestGroup, readonly Copy[]>;
