/** A promise that is settled from outside, for decisions that come later than the question. */
export interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(reason: unknown): void;
}

export function deferred<T>(): Deferred<T> {
  let resolve: (value: T) => void = () => {};
  let reject: (reason: unknown) => void = () => {};
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  // A decision that nobody waits for any more is no unhandled failure.
  promise.catch(() => undefined);
  return { promise, resolve, reject };
}
