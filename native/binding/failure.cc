#include "binding/failure.h"

#include <cstring>
#include <string>

namespace phaul::binding {
namespace {

Napi::Error makeError(Napi::Env env, const Failure& failure) {
  const char* name = strerrorname_np(failure.error);
  const char* description = strerrordesc_np(failure.error);
  std::string code = name != nullptr ? name : std::to_string(failure.error);
  std::string message = code;
  message.append(": ").append(description != nullptr ? description : "unknown error").append(", ").append(failure.syscall);
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  error.Set("errno", Napi::Number::New(env, failure.error));
  error.Set("syscall", Napi::String::New(env, failure.syscall));
  return error;
}

}  // namespace

Napi::Value errorOf(Napi::Env env, const Failure& failure) { return makeError(env, failure).Value(); }

Napi::Value throwFailure(Napi::Env env, const Failure& failure) {
  makeError(env, failure).ThrowAsJavaScriptException();
  return env.Undefined();
}

}  // namespace phaul::binding
