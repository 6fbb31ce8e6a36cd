# The addon without CMake, for machines that have a compiler and make only (node native/build.mjs --gyp): the same
# sources less oneDNN and the CUDA runtime, so it lists and diagnoses devices.
{
  "targets": [
    {
      "target_name": "seresnet",
      "sources": [
        "<!@(node -p \"['native', ...['devices', 'image', 'node', 'ops', 'runtime'].map(name => 'native/' + name)].flatMap(folder => fs.readdirSync(folder).filter(name => name.endsWith('.cc')).map(name => folder + '/' + name)).join(' ')\")",
        "native/stubs/no_onednn.cc",
        "native/stubs/no_backend.cc",
        "native/stubs/no_runtime.cc",
      ],
      "dependencies": ["<!(node -p \"require('node-addon-api').targets\"):node_addon_api_except"],
      "include_dirs": ["native", "<!(node -p \"require('node-api-headers').include_dir\")"],
      "defines": [
        "SERESNET_BUILT_BY=\"node-gyp\"",
        "NAPI_VERSION=8",
        "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS",
      ],
      "cflags_cc!": ["-fno-rtti"],
      "cflags_cc": ["-std=c++20", "-fvisibility=hidden", "-fvisibility-inlines-hidden"],
      "conditions": [
        ["OS=='linux'", {"ldflags": ["-Wl,-z,nodelete"], "libraries": ["-ldl"]}],
        ["OS=='mac'", {"xcode_settings": {"CLANG_CXX_LANGUAGE_STANDARD": "c++20", "GCC_ENABLE_CPP_RTTI": "YES", "GCC_SYMBOLS_PRIVATE_EXTERN": "YES"}}],
      ],
    }
  ]
}
