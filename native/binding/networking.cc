// nftElement, packetCatcher, sendFrame, openTun
#include <algorithm>
#include <memory>
#include <optional>

#include "binding/arguments.h"
#include "binding/failure.h"
#include "binding/registry.h"
#include "core/nft_element.h"
#include "core/packet_catcher.h"
#include "core/raw_frame.h"
#include "core/tun.h"

namespace phaul::binding {
namespace {

Napi::Value nftElement(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info);
  const bool add = arguments.boolean(0);
  const std::string family = arguments.text(1);
  const std::string table = arguments.text(2);
  const std::string set = arguments.text(3);
  const auto key = arguments.bytes(4);
  if (family != "inet" && family != "arp") arguments.refuse(1, "'inet' or 'arp'");
  if (arguments.refused()) return env.Undefined();
  const NftElement element = {family == "inet" ? NftFamily::inet : NftFamily::arp, table, set, key};
  const Done done = add ? addNftElement(element) : deleteNftElement(element);
  if (!done) return throwFailure(env, done.failure());
  return env.Undefined();
}

bool readAddresses(Napi::Array list, AddressSet& addresses) {
  for (std::uint32_t i = 0; i < list.Length(); ++i) {
    std::span<const std::uint8_t> bytes;
    if (!readBytes(list.Get(i), bytes)) return false;
    if (bytes.size() != 4 && bytes.size() != 16) return false;
    if (bytes.size() == 4) std::copy_n(bytes.data(), 4, addresses.v4.emplace_back().data());
    if (bytes.size() == 16) std::copy_n(bytes.data(), 16, addresses.v6.emplace_back().data());
  }
  return true;
}

using SharedCatcher = std::shared_ptr<std::optional<PacketCatcher>>;

Napi::Value finish(Napi::Env env, const Done& done) {
  return done ? env.Undefined() : throwFailure(env, done.failure());
}

Napi::Value openCatcher(const SharedCatcher& catcher, const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const Napi::Array list = arguments.array(0);
  AddressSet addresses;
  if (!arguments.refused() && !readAddresses(list, addresses)) arguments.refuse(0, "addresses of 4 or 16 bytes");
  if (arguments.refused()) return info.Env().Undefined();
  return finish(info.Env(), *catcher ? (*catcher)->open(addresses) : Failure{EBADF, "setsockopt"});
}

Napi::Value drainCatcher(const SharedCatcher& catcher, const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!*catcher) return throwFailure(env, {EBADF, "recv"});
  auto taken = (*catcher)->drain();
  if (!taken) return throwFailure(env, taken.failure());
  Napi::Array packets = Napi::Array::New(env, taken->packets.size());
  for (std::uint32_t i = 0; i < taken->packets.size(); ++i) {
    const auto& packet = taken->packets[i];
    packets[i] = Napi::Buffer<std::uint8_t>::Copy(env, packet.data(), packet.size());
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("packets", packets);
  result.Set("lost", Napi::Number::New(env, taken->lost));
  return result;
}

Napi::Value packetCatcher(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int interface_index = arguments.integer(0);
  const int max_bytes = arguments.integer(1);
  if (arguments.refused()) return info.Env().Undefined();
  auto opened = PacketCatcher::on(interface_index, max_bytes);
  if (!opened) return throwFailure(info.Env(), opened.failure());
  const auto catcher = std::make_shared<std::optional<PacketCatcher>>(std::move(*opened));
  Napi::Object result = Napi::Object::New(info.Env());
  define(result, "open", [catcher](const Napi::CallbackInfo& call) { return openCatcher(catcher, call); });
  define(result, "shut", [catcher](const Napi::CallbackInfo& call) {
    return finish(call.Env(), *catcher ? (*catcher)->shut() : Failure{EBADF, "setsockopt"});
  });
  define(result, "drain", [catcher](const Napi::CallbackInfo& call) { return drainCatcher(catcher, call); });
  define(result, "close", [catcher](const Napi::CallbackInfo&) { catcher->reset(); });
  return result;
}

Napi::Value sendFrame(const Napi::CallbackInfo& info) {
  Arguments arguments(info);
  const int interface_index = arguments.integer(0);
  const auto frame = arguments.bytes(1);
  if (arguments.refused()) return info.Env().Undefined();
  return finish(info.Env(), sendRawFrame(interface_index, frame));
}

Napi::Value openTun(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info);
  const std::string pattern = arguments.text(0);
  if (arguments.refused()) return env.Undefined();
  auto tun = openTunInterface(pattern);
  if (!tun) return throwFailure(env, tun.failure());
  Napi::Object result = Napi::Object::New(env);
  result.Set("fd", Napi::Number::New(env, tun->fd.release()));
  result.Set("name", Napi::String::New(env, tun->name));
  return result;
}

}  // namespace

void registerNetworking(Napi::Object exports) {
  define(exports, "nftElement", nftElement);
  define(exports, "packetCatcher", packetCatcher);
  define(exports, "sendFrame", sendFrame);
  define(exports, "openTun", openTun);
}

}  // namespace phaul::binding
