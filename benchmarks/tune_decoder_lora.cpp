// LoRA r = 16 on all linear layers of a llama-family decoder, "instruction, message, answer" rows, batch 8.
//   python benchmarks/tune_decoder_tokens.py tokens DATA_DIR MODEL_DIR rows.safetensors
//   bench_tune_decoder_lora MODEL.gguf rows.safetensors [STEPS] [THREADS] [float|blocks] [tree|none]
// The peer with the same rows and first values: python benchmarks/tune_decoder_tokens.py peft DATA_DIR MODEL_DIR STEPS
// THREADS
#include <ATen/Parallel.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "core/process.h"
#include "core/token_file.h"
#include "timing.h"
#include "tune/adamw.h"
#include "tune/decoder.h"

int main(int argc, char** argv) {
  using namespace tailor;
  using namespace tailor::tune;
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s MODEL.gguf rows.safetensors [STEPS] [THREADS] [float|blocks] [tree|none]\n",
                 argv[0]);
    return 2;
  }
  const long steps = argc > 3 ? std::atol(argv[3]) : 14;
  at::set_num_threads(argc > 4 ? std::atoi(argv[4]) : 2);
  const auto storage =
      argc > 5 && std::string(argv[5]) == "blocks" ? decoder::WeightStorage::kBlocks : decoder::WeightStorage::kFloat;
  const auto sharing = argc > 6 && std::string(argv[6]) == "none" ? decoder::Sharing::kNone : decoder::Sharing::kTree;
  constexpr long kBatch = 8;
  constexpr long kWarmUp = 2;

  const BaseWeights base = BaseWeights::open(argv[1]).value();
  const auto weights = decoder::DecoderWeights::open(base, storage).value();
  const TokenFile file = read_token_file(argv[2]).value();
  ParameterSet parameters;
  auto adapters = decoder::LoraAdapters::attach(*weights, {.rank = 16, .alpha = 32}, 0, parameters).value();
  parameters.flatten();
  adapters.bind(parameters);
  decoder::Decoder decoder(*weights, &adapters);
  Settings settings;
  settings.learning_rate = 2e-4;
  settings.weight_decay = 0.01;
  AdamW optimizer(parameters, settings);

  auto watch = std::make_unique<bench::Stopwatch>();
  long tokens = 0;
  long computed = 0;
  for (long step = 0; step < steps; ++step) {
    if (step == kWarmUp) {
      watch = std::make_unique<bench::Stopwatch>();
      tokens = computed = 0;
    }
    std::vector<decoder::SequenceView> rows;
    for (long i = 0; i < kBatch; ++i) {
      const auto row = static_cast<std::size_t>(step * kBatch + i) % file.rows();
      rows.push_back({file.row(row), file.mask(row)});
    }
    const auto tree = std::make_shared<decoder::PackedTree>(decoder::pack_tree(rows, sharing));
    const std::vector<float> weight(tree->targets.size(), 1.0f / static_cast<float>(tree->targets.size()));
    double loss = 0;
    for (const float l : decoder.losses_and_gradients(tree, weight, nullptr)) loss += l;
    optimizer.step(1.0, 1.0);
    std::printf("step %ld loss %.6f\n", step, loss / static_cast<double>(tree->targets.size()));
    tokens += tree->row_tokens;
    computed += tree->size();
  }
  const bench::Seconds s = watch->elapsed();
  const auto done = static_cast<double>((steps - kWarmUp) * kBatch);
  std::printf(
      "tailor: %.2f examples/s, %.3f examples/CPU-s, %.1f tokens/s, computed %.1f %% of the tokens, peak %.0f MB\n",
      done / s.wall, done / s.cpu, static_cast<double>(tokens) / s.wall,
      100.0 * static_cast<double>(computed) / static_cast<double>(tokens),
      static_cast<double>(usage_so_far().peak_memory_bytes) / (1 << 20));
  return 0;
}
