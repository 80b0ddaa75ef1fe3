// Labelled texts to the token file of `tailor tune`: reading, tokenising on several threads, writing.
// Run:   bench_tokenise_rows --model minilm-f32.gguf --rows rows.tsv --out tokens.safetensors --threads 2
// rows.tsv: a label's number, a tab and a text a line. Decoders get prompts, encoders the texts. Prints one JSON line;
// memory_mb is what the work takes at most beyond what the loaded tokenizer takes.

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "core/json.h"
#include "fit/token_rows.h"
#include "fit/tuned_encoder.h"
#include "infer/label_scorer.h"
#include "model/tokenizer.h"
#include "prompt/template.h"
#include "timing.h"

namespace {

using namespace tailor;

constexpr std::size_t kRead = 16384;  // rows that are in memory at once

struct Rows {
  std::vector<std::int32_t> labels;
  std::vector<std::string> texts;  // memory is kept
  std::size_t count = 0;

  bool read(std::istream& in) {
    count = 0;
    labels.resize(kRead);
    texts.resize(kRead);
    for (std::string line; count < kRead && std::getline(in, line); ++count) {
      const std::size_t tab = line.find('\t');
      std::from_chars(line.data(), line.data() + tab, labels[count]);
      texts[count].assign(line, tab + 1);
    }
    return count > 0;
  }
};

/// VmHWM or VmRSS of /proc/self/status, in megabytes.
double memory_mb(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name + ":")) return std::stod(line.substr(name.size() + 1)) / 1024;
  }
  return 0;
}

std::size_t write_rows(std::istream& in, const std::filesystem::path& out, int threads, const TokenFile& empty,
                       const std::function<Status(const Rows&, std::size_t, std::size_t, TokenFile&)>& make) {
  TokenFileWriter writer(out);
  Rows rows;
  for (std::size_t first = 0; rows.read(in); first += rows.count) {
    make_token_rows(
        rows.count, threads, empty,
        [&](std::size_t row, TokenFile& block) { return make(rows, row, first + row, block); },
        [&](TokenFile& block) { return writer.append(block); })
        .value();
  }
  writer.finish().value();
  return static_cast<std::size_t>(writer.rows());
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("labelled texts to the token file of tailor tune");
  std::string model, rows_file, labels_file, out;
  int threads = 1;
  app.add_option("--model", model)->required();
  app.add_option("--rows", rows_file)->required();
  app.add_option("--labels", labels_file, "of a decoder: its answers, a JSON list");
  app.add_option("--out", out)->required();
  app.add_option("--threads", threads);
  CLI11_PARSE(app, argc, argv);
  try {
    std::ifstream in(rows_file);
    TokenFile empty;
    empty.n_labels = 1 << 20;
    std::size_t rows = 0;
    bench::Seconds seconds;
    double before = 0;
    const auto measured = [&](const auto& make) {
      before = memory_mb("VmRSS");
      std::ofstream("/proc/self/clear_refs") << 5;  // VmHWM begins anew
      const bench::Stopwatch watch;
      rows = write_rows(in, out, threads, empty, make);
      seconds = watch.elapsed();
    };
    if (labels_file.empty()) {
      const Tokenizer tokenizer = Tokenizer::load(model).value();
      const EncoderReading reading = encoder_reading(model, "").value();
      empty.vocab_size = static_cast<std::int32_t>(tokenizer.vocabulary_size());
      measured([&](const Rows& r, std::size_t i, std::size_t id, TokenFile& block) -> Status {
        add_encoder_row(block, tokenizer, r.texts[i], reading, r.labels[i], TokenPart::kTrain,
                        static_cast<std::int64_t>(id));
        return {};
      });
    } else {
      const auto labels = read_json(labels_file).value().get<std::vector<std::string>>();
      const LabelScorer scorer = LabelScorer::load(model, {.threads = 1}).value();
      PromptTemplate settings;
      settings.end = LabelEnd::kEndOfTurn;
      const PromptBuilder builder =
          PromptBuilder::make(scorer.tokenizer(), "", scorer.max_context(), settings, readable_labels(labels)).value();
      empty.vocab_size = scorer.vocabulary();
      empty.n_labels = static_cast<std::int32_t>(labels.size());
      for (const auto& answer : builder.labels()) empty.add_label(answer);
      measured([&](const Rows& r, std::size_t i, std::size_t id, TokenFile& block) -> Status {
        thread_local std::string scratch;
        TAILOR_CHECK(builder.append_prompt(r.texts[i], scratch, block.tokens));
        end_row(block, r.labels[i], TokenPart::kTrain, static_cast<std::int64_t>(id));
        return {};
      });
    }
    const double peak = memory_mb("VmHWM");
    std::printf(
        "{\"rows\": %zu, \"cpu_seconds\": %.3f, \"wall_seconds\": %.3f, \"rows_per_cpu_second\": %.0f, "
        "\"rows_per_second\": %.0f, \"file_mb\": %.1f, \"memory_mb\": %.1f}\n",
        rows, seconds.cpu, seconds.wall, static_cast<double>(rows) / seconds.cpu,
        static_cast<double>(rows) / seconds.wall, static_cast<double>(std::filesystem::file_size(out)) / 1e6,
        peak - before);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
