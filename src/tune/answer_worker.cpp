#include "tune/answer_worker.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/bottleneck_file.h"
#include "core/error_event.h"
#include "core/safetensors.h"
#include "tune/answer_scorer.h"
#include "tune/decoder.h"

namespace tailor::tune {
namespace {

using decoder::Decoder;
using decoder::PackedTree;
using decoder::SequenceView;
using Tokens = std::vector<std::int32_t>;

AdapterPlace place_of(const SafetensorsFile& file) {
  const auto& metadata = file.metadata();
  const auto found = metadata.find("place");
  const std::string place = found == metadata.end() ? "" : found->second;
  if (place == kPlaceHoulsby) return AdapterPlace::kHoulsby;
  if (place == kPlacePfeiffer) return AdapterPlace::kPfeiffer;
  if (place == kPlaceParallel) return AdapterPlace::kParallel;
  throw Exception({ErrorCode::kCorruptData, fmt::format("{}: place '{}' is not known", file.path().string(), place),
                   "make the package again"});
}

std::string hex(const at::Tensor& values) {
  static constexpr char kDigits[] = "0123456789abcdef";
  const at::Tensor v = values.contiguous();
  const auto* bytes = reinterpret_cast<const unsigned char*>(v.data_ptr<float>());
  std::string out(static_cast<std::size_t>(v.numel()) * 2 * sizeof(float), '0');
  for (std::size_t i = 0; i < out.size() / 2; ++i) {
    out[2 * i] = kDigits[bytes[i] >> 4];
    out[2 * i + 1] = kDigits[bytes[i] & 15];
  }
  return out;
}

}  // namespace

struct AnswerWorker::Impl {
  std::unique_ptr<BaseWeights> base;
  std::unique_ptr<decoder::DecoderWeights> weights;
  ParameterSet parameters;
  decoder::DecoderAdapters adapters;
  std::unique_ptr<Decoder> model;
  Decoder::Seen seen;
  Tokens seen_tokens;

  void load_bottlenecks(const std::filesystem::path& path) {
    const SafetensorsFile file = SafetensorsFile::open(path).value();
    const decoder::DecoderConfig& c = weights->config();
    const AdapterPlace place = place_of(file);
    const std::string first = place == AdapterPlace::kHoulsby ? "blk.0.adapter_attn" : "blk.0.adapter_ffn";
    const SafeTensor down = file.get(first + ".down.weight", "F32", 2).value();
    Rng unused(0);
    adapters.add_bottlenecks(c, place,
                             {.size = static_cast<int>(down.shape[0]), .scale = std::stod(file.metadata().at("scale"))},
                             parameters, unused);
    parameters.flatten();
    adapters.bind(parameters);
    for (const Parameter& p : parameters) {
      const SafeTensor stored = file.get(p.name, "F32", static_cast<std::size_t>(p.value.dim())).value();
      if (stored.shape != p.value.sizes().vec()) {
        throw Exception({ErrorCode::kCorruptData, fmt::format("{}: {} does not fit the model", path.string(), p.name),
                         "make the package again"});
      }
      std::memcpy(p.value.data_ptr<float>(), stored.bytes.data(), stored.bytes.size());
    }
  }

  void check(const Tokens& tokens) const {
    const decoder::DecoderConfig& c = weights->config();
    if (tokens.empty()) throw Exception({ErrorCode::kInvalidArgument, "there are no tokens", ""});
    if (static_cast<std::int64_t>(tokens.size()) > c.context) {
      throw Exception({ErrorCode::kInvalidArgument,
                       fmt::format("the text has {} tokens; the model reads {}", tokens.size(), c.context), ""});
    }
    for (const std::int32_t t : tokens) {
      if (t < 0 || t >= c.vocab)
        throw Exception(
            {ErrorCode::kInvalidArgument, fmt::format("token {} is not one of the model's {}", t, c.vocab), ""});
    }
  }

  Json scores(const Json& request) {
    const auto prompts = request.at("prompts").get<std::vector<Tokens>>();
    const auto answers = request.at("answers").get<std::vector<Tokens>>();
    std::vector<std::span<const std::int32_t>> spans(answers.begin(), answers.end());
    const auto longest = [](const std::vector<Tokens>& texts) {
      return std::max_element(texts.begin(), texts.end(),
                              [](const Tokens& a, const Tokens& b) { return a.size() < b.size(); });
    };
    for (const auto* texts : {&prompts, &answers}) {
      for (const Tokens& text : *texts) check(text);
    }
    if (!prompts.empty() && !answers.empty()) {
      Tokens whole = *longest(prompts);
      whole.insert(whole.end(), longest(answers)->begin(), longest(answers)->end());
      check(whole);
    }
    const std::vector<float> scores = decoder::score_answers(*model, prompts, spans, {});
    Json out = Json::array();
    for (std::size_t p = 0; p < prompts.size(); ++p) {
      const auto from = scores.begin() + static_cast<std::ptrdiff_t>(p * answers.size());
      out.push_back(std::vector<double>(from, from + static_cast<std::ptrdiff_t>(answers.size())));
    }
    return {{"scores", out}};
  }

  Json losses(const Json& request) {
    const auto tokens = request.at("tokens").get<Tokens>();
    const auto mask = request.at("mask").get<std::vector<std::uint8_t>>();
    check(tokens);
    const SequenceView view{tokens, mask};
    const auto tree = std::make_shared<PackedTree>(pack_tree({&view, 1}, decoder::Sharing::kNone));
    return {{"losses", model->losses(tree)}};
  }

  Json logits(const Json& request) {
    const auto tokens = request.at("tokens").get<Tokens>();
    check(tokens);
    const auto [end, other] = std::mismatch(seen_tokens.begin(), seen_tokens.end(), tokens.begin(), tokens.end());
    auto common = static_cast<std::size_t>(end - seen_tokens.begin());
    common = std::min(common, tokens.size() - 1);  // the last one is asked for anew
    seen.cut(static_cast<std::int64_t>(common));
    seen_tokens.resize(common);
    const at::Tensor next = model->next_logits(seen, std::span(tokens).subspan(common));
    seen_tokens = tokens;
    return {{"logits", hex(next)}};
  }
};

AnswerWorker::AnswerWorker(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AnswerWorker::~AnswerWorker() = default;

Result<std::unique_ptr<AnswerWorker>> AnswerWorker::open(const std::filesystem::path& base,
                                                         const std::filesystem::path& bottlenecks) {
  auto impl = std::make_unique<Impl>();
  TAILOR_TRY(BaseWeights file, BaseWeights::open(base));
  impl->base = std::make_unique<BaseWeights>(std::move(file));
  TAILOR_TRY(impl->weights, decoder::DecoderWeights::open(*impl->base, decoder::WeightStorage::kFloat));
  try {
    impl->load_bottlenecks(bottlenecks);
  } catch (const Exception& error) {
    return error.error();
  }
  impl->model = std::make_unique<Decoder>(*impl->weights, nullptr);
  impl->model->set_adapters(&impl->adapters);
  return std::unique_ptr<AnswerWorker>(new AnswerWorker(std::move(impl)));
}

Json AnswerWorker::answer(const Json& request) {
  try {
    const auto op = request.at("op").get<std::string>();
    if (op == "scores") return impl_->scores(request);
    if (op == "losses") return impl_->losses(request);
    if (op == "logits") return impl_->logits(request);
    throw Exception({ErrorCode::kInvalidArgument, fmt::format("op '{}' is not known", op), ""});
  } catch (const Exception& error) {
    return error_event(error.error());
  } catch (const Json::exception& error) {
    return error_event(
        {ErrorCode::kInvalidArgument, std::string("the request is no such object: ") + error.what(), ""});
  }
}

}  // namespace tailor::tune
