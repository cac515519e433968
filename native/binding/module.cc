#include <napi.h>

#include "binding/registry.h"

namespace {

Napi::Object initialize(Napi::Env, Napi::Object exports) {
  using namespace phaul::binding;
  registerSockets(exports);
  registerPacketSocket(exports);
  registerProcesses(exports);
  registerNetworking(exports);
  registerHashes(exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(NODE_GYP_MODULE_NAME, initialize)
