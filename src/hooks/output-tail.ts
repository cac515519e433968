/** The last that a program has said, however much it says. */

/** Bytes that are kept: some twenty lines. */
const keptBytes = 2000;

export class OutputTail {
  #chunks: Buffer[] = [];
  #bytes = 0;
  #cut = false;

  add(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    // Joined at twice the size, so that a flood of small chunks does not copy each time.
    if (this.#bytes <= 2 * keptBytes) return;
    const kept = Buffer.from(Buffer.concat(this.#chunks).subarray(-keptBytes));
    this.#chunks = [kept];
    this.#bytes = kept.length;
    this.#cut = true;
  }

  /** Trimmed; begins with `...` when there was more. */
  text(): string {
    const all = Buffer.concat(this.#chunks);
    const cut = this.#cut || all.length > keptBytes;
    return `${cut ? '...' : ''}${all.subarray(-keptBytes).toString('utf8').trim()}`;
  }
}
