// socketPair, tcpInRepair, tcpLeaveRepair, flock
#include "binding/arguments.h"
#include "binding/failure.h"
#include "binding/registry.h"
#include "core/file_lock.h"
#include "core/seqpacket.h"
#include "core/tcp_repair.h"

namespace phaul::binding {
namespace {

Napi::Value socketPair(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info);
  const std::string kind = arguments.text(0);
  const int buffer_bytes = arguments.integer(1);
  if (kind != "seqpacket" && kind != "stream") arguments.refuse(0, "'seqpacket' or 'stream'");
  if (arguments.refused()) return env.Undefined();
  auto pair = openSocketPair(kind == "stream" ? PairKind::stream : PairKind::seqpacket, buffer_bytes);
  if (!pair) return throwFailure(env, pair.failure());
  Napi::Object ends = Napi::Object::New(env);
  ends.Set("near", Napi::Number::New(env, pair->near.release()));
  ends.Set("far", Napi::Number::New(env, pair->far.release()));
  return ends;
}

Napi::Value tcpInRepair(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.integer(0);
  if (arguments.refused()) return info.Env().Undefined();
  auto repair = inTcpRepair(fd);
  if (!repair) return throwFailure(info.Env(), repair.failure());
  return Napi::Boolean::New(info.Env(), *repair);
}

Napi::Value tcpLeaveRepair(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.integer(0);
  if (arguments.refused()) return info.Env().Undefined();
  const Done left = leaveTcpRepair(fd);
  if (!left) return throwFailure(info.Env(), left.failure());
  return info.Env().Undefined();
}

Napi::Value lockFile(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int fd = arguments.integer(0);
  if (arguments.refused()) return info.Env().Undefined();
  auto locked = tryLockFile(fd);
  if (!locked) return throwFailure(info.Env(), locked.failure());
  return Napi::Boolean::New(info.Env(), *locked);
}

}  // namespace

void registerSockets(Napi::Object exports) {
  define(exports, "socketPair", socketPair);
  define(exports, "tcpInRepair", tcpInRepair);
  define(exports, "tcpLeaveRepair", tcpLeaveRepair);
  define(exports, "flock", lockFile);
}

}  // namespace phaul::binding
