/**
 * Packets to and from one CRIU: a request, the notifications that CRIU asks on its way, the response. One at a time.
 */
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { PhaulError } from '../failure/phaul-error.js';
import type { TimedStep } from '../migration/ports.js';
import { nowMs } from '../migration/report.js';
import { addon, type PacketSocket } from '../native/addon.js';
import { CriuError } from './criu-error.js';
import { describeExit, type EngineProcess } from './engine-process.js';
import type { CriuNotification, NotifyAnswer, NotifyHandler, NotifyScript } from './notifications.js';
import { decodeResponse, encodeRequest, type RequestFields, RequestType, type ResponseFields } from './rpc-codec.js';

interface Packet {
  readonly response: ResponseFields;
  readonly fds: readonly number[];
}

export class Conversation {
  readonly #process: EngineProcess;
  readonly #logFolder: string | null;
  readonly #socket: PacketSocket;
  /** Arrival and answer of each request and notification. */
  readonly timeline: TimedStep[] = [];
  #waiting: { resolve(response: Packet): void; reject(failure: unknown): void } | null = null;
  #gone: PhaulError | null = null;
  #busy = false;
  #answered = false;
  #logFile: string | null = null;

  /** Takes the process's socket over. */
  constructor(process: EngineProcess, logFolder: string | null) {
    this.#process = process;
    this.#logFolder = logFolder;
    this.#socket = addon().packetSocket(process.socket, {
      packet: (bytes, fds) => this.#received(bytes, fds),
      end: () => this.#lost('CRIU has ended without an answer', undefined),
      error: (cause) => this.#lost('the socket to CRIU has failed', cause),
    });
  }

  /** True when the last request ended with CRIU's own answer, good or bad; false when CRIU vanished instead. */
  get answered(): boolean {
    return this.#answered;
  }

  /** The open request fails with `engine-gone` when CRIU has ended. Idempotent. */
  close(): void {
    this.#socket.close();
    this.#lost('phaul has hung up', undefined);
  }

  /**
   * Sends a request and answers notifications until the response comes. `logFile` is the name of CRIU's log of this request.
   * Throws CriuError: CRIU's refusal, or `engine-gone`; or what the handler has thrown.
   */
  async converse(request: RequestFields, logFile: string | null, onNotify: NotifyHandler): Promise<ResponseFields> {
    const name = RequestType[request.type].toLowerCase().replaceAll('_', '-');
    if (this.#busy) throw new Error(`CRIU is still busy: ${name} must wait for the answer to the last request`);
    this.#busy = true;
    this.#answered = false;
    this.#logFile = logFile;
    try {
      const response = await this.#untilResponse(name, request, onNotify);
      if (!response.success) throw await this.#refused(name, response);
      return response;
    } finally {
      this.#busy = false;
    }
  }

  async #untilResponse(name: string, request: RequestFields, onNotify: NotifyHandler): Promise<ResponseFields> {
    this.#mark(name);
    let refusal: { readonly thrown: unknown } | null = null;
    try {
      let packet = await this.#exchange(request);
      while (packet.response.type === RequestType.NOTIFY) {
        const notification = notificationOf(packet);
        this.#mark(notification.script);
        let answer: NotifyAnswer = { success: true };
        if (refusal !== null) {
          // CRIU tells what it undoes on its way back (`network-unlock`); the handler has had its say.
          closeAll(packet.fds);
        } else {
          try {
            answer = await onNotify(notification);
          } catch (thrown) {
            refusal = { thrown };
            answer = { success: false };
          }
        }
        this.#mark(`${notification.script} answered`);
        packet = await this.#exchange(answerFields(answer));
      }
      this.#answered = true;
      this.#mark(`${name} done`);
      if (refusal === null) return packet.response;
    } catch (thrown) {
      // What the handler threw is the story; that CRIU is gone too comes after it, and `answered` tells it.
      if (refusal === null) throw thrown;
    }
    throw refusal.thrown;
  }

  #exchange(request: RequestFields): Promise<Packet> {
    return new Promise((resolve, reject) => {
      if (this.#gone !== null) {
        this.#explainGone(this.#gone, reject);
        return;
      }
      this.#waiting = { resolve, reject };
      try {
        this.#socket.send(encodeRequest(request));
      } catch (cause) {
        // After EPIPE or ECONNRESET `end` comes too, and explains more than they do.
        if (cause instanceof TypeError) {
          this.#waiting = null;
          reject(cause);
        } else {
          this.#lost('CRIU has ended without an answer', cause);
        }
      }
    });
  }

  #received(bytes: Buffer, fds: number[]): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    if (waiting === null) {
      closeAll(fds);
      return;
    }
    try {
      waiting.resolve({ response: decodeResponse(bytes), fds });
    } catch (failure) {
      closeAll(fds);
      waiting.reject(failure);
    }
  }

  #lost(what: string, cause: unknown): void {
    this.#gone ??= new PhaulError({
      code: 'engine-gone',
      what,
      remedy: 'see the log of CRIU and of the kernel',
      cause,
    });
    const waiting = this.#waiting;
    this.#waiting = null;
    if (waiting !== null) this.#explainGone(this.#gone, waiting.reject);
  }

  /** Only after CRIU's end: it tells more than the closed socket, the log is complete, and the tree is free. */
  #explainGone(gone: PhaulError, reject: (failure: unknown) => void): void {
    void this.#process.exited
      .then((exit) => CriuError.gone(gone, describeExit(exit), this.#logPath()))
      .then(reject, reject);
  }

  async #refused(name: string, response: ResponseFields): Promise<CriuError> {
    return await CriuError.refused(name, this.#logPath(), response.cr_errno ?? null, response.cr_errmsg ?? null);
  }

  #logPath(): string | null {
    return this.#logFolder === null || this.#logFile === null ? null : join(this.#logFolder, this.#logFile);
  }

  #mark(step: string): void {
    this.timeline.push({ step, at: nowMs() });
  }
}

function notificationOf({ response, fds }: Packet): CriuNotification {
  const { script, pid } = response.notify ?? {};
  return { script: (script ?? '') as NotifyScript, pid: pid ? pid : null, fds };
}

function answerFields({ success, external }: NotifyAnswer): RequestFields {
  const answer = { type: RequestType.NOTIFY, notify_success: success };
  return external ? { ...answer, opts: { images_dir_fd: -1, external: [...external] } } : answer;
}

function closeAll(fds: readonly number[]): void {
  for (const fd of fds) closeSync(fd);
}
