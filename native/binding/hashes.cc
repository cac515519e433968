// xxh3, xxh3Stream
#include <memory>

#include "binding/arguments.h"
#include "binding/registry.h"
#include "core/xxh3.h"

namespace phaul::binding {
namespace {

Napi::Value xxh3(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const auto data = arguments.bytes(0);
  if (arguments.refused()) return info.Env().Undefined();
  return Napi::BigInt::New(info.Env(), xxh3Of(data));
}

Napi::Value xxh3Stream(const Napi::CallbackInfo& info) {
  auto stream = std::make_shared<Xxh3Stream>();
  Napi::Object result = Napi::Object::New(info.Env());
  define(result, "update", [stream](const Napi::CallbackInfo& call) {
    Arguments arguments(call);
    stream->update(arguments.bytes(0));
  });
  define(result, "digest", [stream](const Napi::CallbackInfo& call) -> Napi::Value {
    return Napi::String::New(call.Env(), stream->digest());
  });
  return result;
}

}  // namespace

void registerHashes(Napi::Object exports) {
  define(exports, "xxh3", xxh3);
  define(exports, "xxh3Stream", xxh3Stream);
}

}  // namespace phaul::binding
