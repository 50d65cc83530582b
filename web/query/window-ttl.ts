/** How long what was read of a window is valid: see `docs/decisions/0013-closed-windows-are-cached.md`. */

/** TTL if the store reports its changes, in milliseconds. It does not report the deletion of expired rows. */
export const notifiedTtlMs = 600_000;
/** Minimum TTL of a closed window if other processes write, in milliseconds. */
export const closedTtlMsMin = 10_000;
/** Maximum TTL of a closed window if other processes write: imports and spooled batches change old windows. */
export const closedTtlMsMaxDefault = 60_000;
/** Time from a window's end until it counts as closed, in milliseconds. Covers late lines and clock skew. */
export const closesAfterMs = 60_000;

/**
 * TTL of a closed window if other processes write, in milliseconds. Recently closed windows are more likely to
 * change.
 */
export function closedTtlMs(sinceEndMs: number, maxMs = closedTtlMsMaxDefault): number {
  return Math.min(maxMs, Math.max(closedTtlMsMin, sinceEndMs / 10));
}
