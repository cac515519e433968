// pidfdOpen, pidfdSignal, pidfdGetfd, appendAlways, exitWatch
#include <memory>

#include "binding/arguments.h"
#include "binding/callback.h"
#include "binding/failure.h"
#include "binding/loop_poll.h"
#include "binding/registry.h"
#include "core/pidfd.h"

namespace phaul::binding {
namespace {

Napi::Value pidfdOpen(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int pid = arguments.integer(0);
  if (arguments.refused()) return info.Env().Undefined();
  auto pidfd = openPidfd(pid);
  if (!pidfd) return throwFailure(info.Env(), pidfd.failure());
  return Napi::Number::New(info.Env(), pidfd->release());
}

Napi::Value pidfdSignal(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int pidfd = arguments.integer(0);
  const int signal = arguments.integer(1);
  if (arguments.refused()) return info.Env().Undefined();
  const Done sent = signalPidfd(pidfd, signal);
  if (!sent) return throwFailure(info.Env(), sent.failure());
  return info.Env().Undefined();
}

Napi::Value pidfdGetfd(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int pidfd = arguments.integer(0);
  const int target = arguments.integer(1);
  if (arguments.refused()) return info.Env().Undefined();
  auto duplicate = duplicateFdOf(pidfd, target);
  if (!duplicate) return throwFailure(info.Env(), duplicate.failure());
  return Napi::Number::New(info.Env(), duplicate->release());
}

Napi::Value appendAlwaysTo(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.integer(0);
  if (arguments.refused()) return info.Env().Undefined();
  const Done changed = appendAlways(fd);
  if (!changed) return throwFailure(info.Env(), changed.failure());
  return info.Env().Undefined();
}

// A pidfd becomes readable when its process has exited (pidfd_open(2)).
struct ExitWatch {
  UniqueFd pidfd;
  Napi::ObjectReference listener;
  OwnedLoopPoll poll;

  void close() {
    poll.reset();
    pidfd.reset();
    listener.Reset();
  }

  void tell(Napi::Env env) {
    const Napi::HandleScope scope(env);
    const Napi::Object callback = listener.Value();
    close();
    callMethod(callback, "onExit", {});
  }
};

Napi::Value exitWatch(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info);
  const int pidfd = arguments.integer(0);
  const Napi::Function on_exit = arguments.function(1);
  if (arguments.refused()) return env.Undefined();

  auto watch = std::make_shared<ExitWatch>();
  // An own duplicate: the caller may close the pidfd, and its number may be used again, while the loop still has it.
  auto duplicate = duplicateFd(pidfd);
  if (!duplicate) return throwFailure(env, duplicate.failure());
  watch->pidfd = std::move(*duplicate);
  auto poll = LoopPoll::on(env, watch->pidfd.get(), UV_READABLE,
                           {.ready = [watch, env](int) { watch->tell(env); },
                            .failed = [watch, env] { watch->tell(env); },
                            .ending = [watch] { watch->close(); }});
  if (!poll) return throwFailure(env, poll.failure());
  watch->poll = std::move(*poll);
  Napi::Object listener = Napi::Object::New(env);
  listener.Set("onExit", on_exit);
  watch->listener = Napi::Persistent(listener);

  Napi::Object result = Napi::Object::New(env);
  define(result, "close", [watch](const Napi::CallbackInfo&) { watch->close(); });
  return result;
}

}  // namespace

void registerProcesses(Napi::Object exports) {
  define(exports, "pidfdOpen", pidfdOpen);
  define(exports, "pidfdSignal", pidfdSignal);
  define(exports, "pidfdGetfd", pidfdGetfd);
  define(exports, "appendAlways", appendAlwaysTo);
  define(exports, "exitWatch", exitWatch);
}

}  // namespace phaul::binding
