/**
 * The fence of the destination: the moved address may stand here, silently, before its sockets do, and TCP over loopback
 * inside the tree waits until both ends exist (dangers.md 14, 17a). It outlives the agent: without it the kernel would
 * answer the clients with RST.
 */
import {
  addElements,
  addressElements,
  deleteElements,
  deleteFence,
  fenceName,
  installFence,
  loopbackElement,
} from './fence-table.js';

export class DestinationFence implements AsyncDisposable {
  readonly name: string;
  readonly #addresses: readonly { readonly ip: string }[];

  private constructor(name: string, addresses: readonly { readonly ip: string }[]) {
    this.name = name;
    this.#addresses = addresses;
  }

  /**
   * Installs the fence closed; only then may the address be added. The engine must be primed before: a fresh CRIU
   * probes the kernel over loopback (dangers.md 17a).
   * @param loopbackPorts ports of TCP connections inside the tree over loopback.
   */
  static async install(
    id: string,
    addresses: readonly { readonly ip: string }[],
    loopbackPorts: readonly number[],
    signal: AbortSignal,
  ): Promise<DestinationFence> {
    const name = fenceName(id, 'destination');
    await installFence(name, { addresses, loopbackPorts, loopbackClosed: true }, signal);
    return new DestinationFence(name, addresses);
  }

  /**
   * After COMMIT, before `post-restore` is answered: the window probe of a socket that leaves repair mode must not be
   * lost. Synchronous, ~0.1 ms; idempotent.
   */
  open(): void {
    deleteElements(this.name, [loopbackElement(), ...this.#addresses.flatMap(addressElements)]);
  }

  /** Closes it again, when a copy has failed behind it: an address without its sockets answers clients with RST. Synchronous. */
  close(): void {
    addElements(this.name, [loopbackElement(), ...this.#addresses.flatMap(addressElements)]);
  }

  /** Deletes the tables. Without COMMIT only when the address is gone. Idempotent. */
  async remove(): Promise<void> {
    await deleteFence(this.name);
  }

  /** For the janitor and for recovery, which know only the id. Idempotent. */
  static async removeByName(id: string): Promise<void> {
    await deleteFence(fenceName(id, 'destination'));
  }

  /** Opens a fence known only by its id (recovery after the line). Idempotent. */
  static openByName(id: string, addresses: readonly { readonly ip: string }[]): void {
    new DestinationFence(fenceName(id, 'destination'), addresses).open();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.remove();
  }
}
