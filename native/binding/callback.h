// Calls from the event loop into JavaScript.
#pragma once

#include <napi.h>

#include <initializer_list>

namespace phaul::binding {

// Runs `target[name](...)`, then next-ticks and microtasks. What it throws is an uncaught exception, as in every
// callback of Node. Needs an open handle scope.
inline void callMethod(Napi::Object target, const char* name, const std::initializer_list<napi_value>& values) {
  const Napi::Env env = target.Env();
  const Napi::Value method = target.Get(name);
  if (method.IsFunction()) method.As<Napi::Function>().MakeCallback(target, values);
  if (env.IsExceptionPending()) napi_fatal_exception(env, env.GetAndClearPendingException().Value());
}

}  // namespace phaul::binding
