import type { ClientIpPolicy } from './bounds.js';
import type { ConfiguredHosts } from './configured-hosts.js';
import type { CountryOf } from './countries.js';

/** How requests are recorded: the same for all recorders of a process. */
export interface RecordingPolicy {
  /** Maximum number of hosts recorded by name; the others are counted as `_other`. */
  readonly hostsMax: number;
  /** Hosts of Caddy's configuration. They may change later. Default: none. */
  readonly configuredHosts?: ConfiguredHosts | undefined;
  readonly clientIp: ClientIpPolicy;
  /** Looks up the country of an address before the address is truncated. Default: no countries. */
  readonly countryOf?: CountryOf | undefined;
  /** Fraction of requests stored as raw requests, from 0 to 1. All requests are counted. Default: 1. */
  readonly sampleRatio?: number | undefined;
}
