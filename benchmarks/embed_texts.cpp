// Texts embedded per CPU-second.
// Run:   bench_embed_texts --model minilm-f16.gguf --texts texts.txt     (one text a line; see peers/embed_texts.py)
// Prints one JSON line.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "infer/embedder.h"
#include "timing.h"

int main(int argc, char** argv) {
  CLI::App app("texts embedded per CPU-second");
  std::string model, texts_file, vectors_file;
  tailor::EmbedderOptions options;
  int repeats = 3;
  std::size_t limit = 0;
  app.add_option("--model", model)->required();
  app.add_option("--texts", texts_file)->required();
  app.add_option("--limit", limit);
  app.add_option("--threads", options.threads);
  app.add_option("--batch-tokens", options.batch_tokens);
  app.add_flag("--llama{false}", options.own_encoder, "llama.cpp also where our own encoder could be used");
  app.add_flag("--no-flash{false}", options.flash_attention);
  app.add_option("--repeats", repeats);
  app.add_option("--vectors", vectors_file, "write the vectors as raw f32");
  CLI11_PARSE(app, argc, argv);

  std::vector<std::string> texts;
  std::ifstream in(texts_file);
  for (std::string line; std::getline(in, line) && (limit == 0 || texts.size() < limit);) texts.push_back(line);
  try {
    tailor::Embedder embedder = tailor::Embedder::load(model, options).value();
    const tailor::CancelToken cancel;
    (void)embedder.embed(std::span(texts).first(std::min<std::size_t>(texts.size(), 64)), {}, cancel)
        .value();  // warm-up
    tailor::bench::Seconds best{1e30, 1e30};
    tailor::Matrix vectors;
    tailor::EmbedStats stats;
    for (int i = 0; i < repeats; ++i) {
      const tailor::bench::Stopwatch watch;
      vectors = embedder.embed(texts, {}, cancel, &stats).value();
      const tailor::bench::Seconds seconds = watch.elapsed();
      if (seconds.cpu < best.cpu) best = seconds;
    }
    std::printf(
        "{\"texts\": %zu, \"tokens\": %zu, \"cpu_seconds\": %.3f, \"wall_seconds\": %.3f, \"texts_per_cpu_second\": "
        "%.1f}\n",
        texts.size(), stats.tokens, best.cpu, best.wall, static_cast<double>(texts.size()) / best.cpu);
    if (!vectors_file.empty()) {
      std::ofstream out(vectors_file, std::ios::binary);
      out.write(reinterpret_cast<const char*>(vectors.data.data()),
                static_cast<std::streamsize>(vectors.data.size() * sizeof(float)));
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
