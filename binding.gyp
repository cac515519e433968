{
  "targets": [
    {
      "target_name": "phaul",
      "sources": [
        "native/core/file_lock.cc",
        "native/core/nft_element.cc",
        "native/core/packet_catcher.cc",
        "native/core/packet_filter.cc",
        "native/core/pidfd.cc",
        "native/core/raw_frame.cc",
        "native/core/seqpacket.cc",
        "native/core/tcp_repair.cc",
        "native/core/tun.cc",
        "native/core/xxh3.cc",
        "native/binding/arguments.cc",
        "native/binding/failure.cc",
        "native/binding/hashes.cc",
        "native/binding/loop_poll.cc",
        "native/binding/module.cc",
        "native/binding/networking.cc",
        "native/binding/packet_socket.cc",
        "native/binding/processes.cc",
        "native/binding/sockets.cc"
      ],
      "include_dirs": ["native"],
      "defines": ["NAPI_VERSION=8", "NAPI_DISABLE_CPP_EXCEPTIONS"],
      "cflags!": ["-fno-strict-aliasing"],
      "cflags_cc!": ["-std=gnu++17"],
      "cflags_cc": [
        "-std=c++20",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fvisibility=hidden",
        "-isystem <!(node -p \"require('node:path').dirname(require.resolve('node-addon-api'))\")"
      ]
    }
  ]
}
