#include "infer/torch_worker.h"

#include <cstring>
#include <string>

#include "core/error_event.h"
#include "core/json.h"

namespace tailor {
namespace {

Result<Json> read_answer(const std::string& line) {
  TAILOR_TRY(Json answer, parse_json(line, "tailor-tune's answer"));
  if (answer.value("event", "") == "error") return error_from_event(answer);
  return answer;
}

Result<Json> ask(Companion& companion, const Json& request, const CancelToken& cancel) {
  TAILOR_TRY(const std::string line, companion.ask(dump_json(request), cancel));
  return read_answer(line);
}

Error broken() {
  return {ErrorCode::kInternal, "tailor-tune's answer is not what was asked for", "please report it"};
}

int digit(char c) {
  return c <= '9' ? c - '0' : c - 'a' + 10;
}

}  // namespace

Result<std::unique_ptr<TorchWorker>> TorchWorker::start(const std::filesystem::path& gguf,
                                                        const TorchWorkerFiles& files, int threads) {
  if (files.program.empty()) {
    return Error{ErrorCode::kUnavailable,
                 files.bottlenecks.string() + " needs tailor-tune to answer, which this build does not have",
                 "build with libtorch, or take a package whose adapter is folded in"};
  }
  const std::string n = std::to_string(threads);
  TAILOR_TRY(
      std::unique_ptr<Companion> companion,
      Companion::start({.command = {files.program.string(), "--answer", gguf.string(), files.bottlenecks.string()},
                        .environment = {{"OMP_NUM_THREADS", n}, {"OMP_WAIT_POLICY", "passive"}}}));
  TAILOR_TRY(const std::string first, companion->listen(CancelToken()));
  TAILOR_CHECK(read_answer(first));
  return std::unique_ptr<TorchWorker>(new TorchWorker(std::move(companion)));
}

Result<std::vector<std::vector<double>>> TorchWorker::scores(std::span<const TokenList> prompts,
                                                             std::span<const TokenList> answers,
                                                             const CancelToken& cancel) {
  TAILOR_TRY(const Json answer, ask(*companion_,
                                    {{"op", "scores"},
                                     {"prompts", std::vector<TokenList>(prompts.begin(), prompts.end())},
                                     {"answers", std::vector<TokenList>(answers.begin(), answers.end())}},
                                    cancel));
  if (!answer.contains("scores") || answer["scores"].size() != prompts.size()) return broken();
  return answer["scores"].get<std::vector<std::vector<double>>>();
}

Result<std::vector<double>> TorchWorker::losses(std::span<const std::int32_t> tokens,
                                                std::span<const std::uint8_t> mask, const CancelToken& cancel) {
  std::vector<int> numbers(mask.begin(), mask.end());
  TAILOR_TRY(const Json answer,
             ask(*companion_,
                 {{"op", "losses"}, {"tokens", TokenList(tokens.begin(), tokens.end())}, {"mask", numbers}}, cancel));
  if (!answer.contains("losses")) return broken();
  return answer["losses"].get<std::vector<double>>();
}

Result<std::vector<float>> TorchWorker::logits(std::span<const std::int32_t> tokens, const CancelToken& cancel) {
  TAILOR_TRY(const Json answer,
             ask(*companion_, {{"op", "logits"}, {"tokens", TokenList(tokens.begin(), tokens.end())}}, cancel));
  if (!answer.contains("logits")) return broken();
  const auto& hex = answer["logits"].get_ref<const std::string&>();
  std::vector<float> values(hex.size() / (2 * sizeof(float)));
  std::string bytes(values.size() * sizeof(float), 0);
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<char>(digit(hex[2 * i]) * 16 + digit(hex[2 * i + 1]));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace tailor
