// LoRA adapters with random numbers for a decoder's attention, as many as are asked for: what serving them costs does
// not depend on what they learned.
//   bench_make_adapters MODEL.gguf OUT_DIRECTORY COUNT [--rank 8]
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <string>

#include "core/rng.h"
#include "model/gguf_file.h"
#include "model/gguf_writer.h"

namespace {

using namespace tailor;

Status write_adapter(const GgufFile& model, const std::filesystem::path& to, std::uint64_t rank, std::uint64_t seed) {
  GgufWriter writer;
  TAILOR_TRY(const std::string architecture, model.architecture());
  writer.set("general.architecture", GgufValue::string(architecture));
  writer.set("general.type", GgufValue::string("adapter"));
  writer.set("adapter.type", GgufValue::string("lora"));
  writer.set("adapter.lora.alpha", GgufValue::f32(16));
  std::uint64_t stream = 0;
  const auto add = [&](const std::string& name, std::uint64_t columns, std::uint64_t rows, double size) {
    writer.add(name, TensorType::kF32, {columns, rows}, [=, at = ++stream]() -> Result<std::vector<float>> {
      Rng rng(seed, at);
      std::vector<float> values(columns * rows);
      for (float& v : values) v = static_cast<float>(size * rng.normal());
      return values;
    });
  };
  for (const GgufTensor& tensor : model.tensors()) {
    if (!tensor.name.ends_with("attn_q.weight") && !tensor.name.ends_with("attn_v.weight")) continue;
    add(tensor.name + ".lora_a", tensor.shape[0], rank, 0.02);
    add(tensor.name + ".lora_b", rank, tensor.shape[1], 0.02);
  }
  return writer.write(to);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app;
  std::filesystem::path model, out;
  std::uint64_t count = 1, rank = 8;
  app.add_option("model", model)->required();
  app.add_option("out", out)->required();
  app.add_option("count", count)->required();
  app.add_option("--rank", rank);
  CLI11_PARSE(app, argc, argv);
  std::filesystem::create_directories(out);
  const auto file = GgufFile::open(model);
  if (!file.has_value()) {
    std::fprintf(stderr, "%s\n", to_string(file.error()).c_str());
    return 1;
  }
  for (std::uint64_t i = 0; i < count; ++i) {
    if (const Status written = write_adapter(*file, out / ("adapter-" + std::to_string(i) + ".gguf"), rank, i + 1);
        !written) {
      std::fprintf(stderr, "%s\n", to_string(written.error()).c_str());
      return 1;
    }
  }
  return 0;
}
