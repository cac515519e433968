/** A TCP connection read by lines and lengths. */
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';

export class ByteStream {
  readonly localPort: number;
  readonly #socket: Socket;
  #buffer = '';
  #failure: Error | null = null;
  #wake: () => void = () => {};

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.localPort = socket.localPort ?? 0;
    socket.setNoDelay(true);
    socket.setEncoding('latin1');
    socket.on('data', (text: string) => {
      this.#buffer += text;
      this.#wake();
    });
    const fail = (error: Error): void => {
      this.#failure ??= error;
      this.#wake();
    };
    socket.on('error', fail);
    socket.on('close', () => fail(new Error('connection closed by the server')));
  }

  static async connect(address: string, port: number): Promise<ByteStream> {
    const socket = createConnection({ host: address, port });
    await once(socket, 'connect');
    return new ByteStream(socket);
  }

  write(text: string): void {
    this.#socket.write(text, 'latin1');
  }

  /** Up to the next LF; without it and a CR before it. */
  async line(): Promise<string> {
    for (;;) {
      const end = this.#buffer.indexOf('\n');
      if (end >= 0) return this.#take(end + 1).replace(/\r?\n$/, '');
      await this.#more();
    }
  }

  async bytes(length: number): Promise<string> {
    while (this.#buffer.length < length) await this.#more();
    return this.#take(length);
  }

  #take(length: number): string {
    const taken = this.#buffer.slice(0, length);
    this.#buffer = this.#buffer.slice(length);
    return taken;
  }

  async #more(): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }
}
