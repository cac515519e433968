// What each part of the boundary adds to the addon's exports (src/native/addon.ts).
#pragma once

#include <napi.h>

namespace phaul::binding {

void registerHashes(Napi::Object exports);
void registerNetworking(Napi::Object exports);
void registerPacketSocket(Napi::Object exports);
void registerProcesses(Napi::Object exports);
void registerSockets(Napi::Object exports);

// Adds one function.
template <typename Call>
void define(Napi::Object target, const char* name, Call call) {
  target.Set(name, Napi::Function::New(target.Env(), call, name));
}

}  // namespace phaul::binding
