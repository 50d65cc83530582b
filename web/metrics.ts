import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { RequestEvent } from '../shared/request-event.js';
import { hasLatency } from '../shared/status.js';
import { unmatchedEndpoint } from './middleware/request-metrics.js';

/** Metrics of the web app, in the Prometheus text format. */
export interface WebMetrics {
  /** Counts one request of the app. */
  observe(event: RequestEvent): void;
  readonly contentType: string;
  text(): Promise<string>;
}

/** Creates the metrics. `storeUp` is called at each scrape. */
export function createWebMetrics({ storeUp }: { storeUp: () => Promise<boolean> }): WebMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const requests = new Counter({
    name: 'caddy_log_sink_web_requests_total',
    help: 'Requests to the web app, by route and status (0: aborted before the response).',
    labelNames: ['endpoint', 'status'],
    registers,
  });
  const durations = new Histogram({
    name: 'caddy_log_sink_web_request_duration_seconds',
    help: 'Duration of requests to the web app, by route.',
    labelNames: ['endpoint'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10],
    registers,
  });
  new Gauge({
    name: 'caddy_log_sink_web_store_up',
    help: 'Whether the store can be read: 1 or 0.',
    registers,
    async collect() {
      this.set((await storeUp()) ? 1 : 0);
    },
  });
  return {
    observe({ endpoint, method, status, durationMs }) {
      const labels = { endpoint: endpoint === '' ? unmatchedEndpoint : endpoint };
      requests.inc({ ...labels, status });
      if (durationMs !== null && hasLatency({ status, method })) durations.observe(labels, durationMs / 1000);
    },
    contentType: registry.contentType,
    text: () => registry.metrics(),
  };
}
