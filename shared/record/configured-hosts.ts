/** The known hosts of Caddy's configuration. */
export class ConfiguredHosts {
  #names: ReadonlySet<string> = new Set();
  /** Hosts with `*` as a label. */
  #patterns: ReadonlySet<string> = new Set();
  /** Positions of `*` in the patterns: `*..` for `*.example.com`. */
  #shapes: readonly string[] = [];
  #version = 0;

  constructor(hosts: Iterable<string> = []) {
    this.set(hosts);
  }

  /** Changes with every change of the hosts. */
  get version(): number {
    return this.#version;
  }

  /**
   * Replaces the hosts, which are lower case and without a port. `*` matches any one label, as in Caddy's `host`
   * matcher.
   */
  set(hosts: Iterable<string>): void {
    const all = [...new Set(hosts)];
    if (
      all.length === this.#names.size + this.#patterns.size &&
      all.every((host) => this.#names.has(host) || this.#patterns.has(host))
    )
      return;
    this.#names = new Set(all.filter((host) => !isPattern(host)));
    this.#patterns = new Set(all.filter(isPattern));
    this.#shapes = [...new Set([...this.#patterns].map(shapeOf))];
    this.#version += 1;
  }

  /** Whether exactly this host is configured. */
  has(host: string): boolean {
    return this.#names.has(host);
  }

  /** Whether a site of Caddy matches the host, which may have a port. Clients can make up any number of such hosts. */
  covers(host: string): boolean {
    const name = host.replace(/:\d+$/, '');
    if (this.#names.has(name)) return true;
    const labels = name.split('.');
    return this.#shapes.some((shape) => {
      const marks = shape.split('.');
      return (
        marks.length === labels.length &&
        this.#patterns.has(labels.map((label, at) => (marks[at] === '*' ? '*' : label)).join('.'))
      );
    });
  }
}

function isPattern(host: string): boolean {
  return host.split('.').includes('*');
}

function shapeOf(pattern: string): string {
  return pattern
    .split('.')
    .map((label) => (label === '*' ? '*' : ''))
    .join('.');
}
