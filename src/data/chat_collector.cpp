#include "data/chat_collector.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/hash.h"
#include "data/chat_tools.h"
#include "text/unicode.h"

namespace tailor {
namespace {

constexpr std::size_t kNamedUnused = 16;
constexpr std::size_t kShownCodePoints = 60;

std::uint64_t hash_of(const ChatExample& example) {
  std::uint64_t hash = 0;
  for (const ChatTurn& turn : example.turns) {
    hash = hash64(turn.content, hash64(turn.role, hash + (turn.learn ? 1 : 0)));
    if (!turn.tool_calls.is_null()) hash = hash64(dump_json(turn.tool_calls), hash);
  }
  return example.tools.is_null() ? hash : hash64(dump_json(example.tools), hash);
}

std::string_view to_string(ExampleForm form) {
  return form == ExampleForm::kChat ? "lists of messages" : "texts";
}

}  // namespace

ChatCollector::ChatCollector(std::string file, ChatPlaces places, const ChatReadOptions& options)
    : places_(places), options_(options) {
  data_.file = std::move(file);
}

std::string ChatCollector::place(std::uint64_t number) const {
  return fmt::format("{} {}", places_ == ChatPlaces::kLines ? "line" : "element", number);
}

std::string ChatCollector::as_first(std::string_view what) const {
  return fmt::format("expected {} as {} {}", what, places_ == ChatPlaces::kLines ? "on" : "in", place(first_));
}

Error ChatCollector::at(std::uint64_t number, const Error& error) const {
  const std::string where = places_ == ChatPlaces::kLines ? fmt::format("{}:{}", data_.file, number)
                                                          : fmt::format("{}, element {}", data_.file, number);
  return {error.code, fmt::format("{}: {}", where, error.message), error.hint};
}

Result<ChatShape> ChatCollector::shape_of(std::uint64_t number, std::span<const ChatField> fields) {
  if (number > std::numeric_limits<std::uint32_t>::max()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{} has more than 4,294,967,295 lines", data_.file),
                 "split the file"};
  }
  const Result<ChatShape> shape = recognise_shape(fields);
  if (!shape_) {
    if (!shape) return at(number, shape.error());
    shape_ = *shape;
    first_ = number;
    return *shape_;
  }
  if (shape && *shape == *shape_) return *shape;
  if (!shape && is_preference_data(fields)) return at(number, shape.error());
  return at(number,
            {ErrorCode::kInvalidArgument,
             shape ? fmt::format("{}, saw {} ({})", as_first(to_string(*shape_)), to_string(*shape), list_keys(fields))
                   : fmt::format("{}, saw {}", as_first(to_string(*shape_)), list_keys(fields)),
             shape ? "one file holds rows of one shape: put each shape into a file of its own" : shape.error().hint});
}

void ChatCollector::note_unused(std::uint64_t number, std::string_view key) {
  std::string shown = shorten(key, kShownCodePoints);
  const auto found = unused_.find(shown);
  if (found != unused_.end())
    found->second.add(number);
  else if (unused_.size() < kNamedUnused)
    unused_[std::move(shown)].add(number);
  else
    more_unused_.add(number);
}

bool ChatCollector::is_duplicate(const ChatExample& example) {
  const std::uint64_t hash = hash_of(example);
  const auto [begin, end] = seen_.equal_range(hash);
  const bool there = std::any_of(begin, end, [&](const auto& entry) {
    const ChatExample& earlier = data_.examples[entry.second];
    return earlier.turns == example.turns && earlier.tools == example.tools;
  });
  if (there) return true;
  seen_.emplace(hash, data_.examples.size());
  return false;
}

Status ChatCollector::add(std::uint64_t number, ExampleForm form, std::vector<ChatTurn> turns, Json tools) {
  if (!form_) form_ = form;
  if (*form_ != form) {
    return at(number,
              {ErrorCode::kInvalidArgument,
               fmt::format("{}, saw {}", as_first(fmt::format("'prompt' and 'completion' to be {}", to_string(*form_))),
                           to_string(form)),
               "one file holds rows of one shape: put each shape into a file of its own"});
  }
  ++data_.rows;
  if (form == ExampleForm::kChat) {
    if (const Status order = check_order(turns); !order) return at(number, order.error());
    if (const Status order = check_tool_turns(turns); !order) return at(number, order.error());
    const std::size_t before = turns.size();
    while (!turns.empty() && turns.back().role != "assistant") turns.pop_back();
    if (std::none_of(turns.begin(), turns.end(), [](const ChatTurn& turn) { return turn.learn; })) {
      left_out_.add(number);
      return {};
    }
    if (turns.size() < before) cut_.add(number);
  }
  ChatExample example{form, std::move(turns), std::move(tools), static_cast<std::uint32_t>(number)};
  if (is_duplicate(example))
    duplicates_.add(number);
  else
    data_.examples.push_back(std::move(example));
  return {};
}

void ChatCollector::warn(const Tally& tally, std::string_view one, std::string_view many) {
  if (tally.count == 0) return;
  data_.warnings.push_back(
      tally.count == 1
          ? fmt::format("{}: one example {} ({})", data_.file, one, place(tally.first))
          : fmt::format("{}: {} examples {} (the first: {})", data_.file, tally.count, many, place(tally.first)));
}

Result<ChatData> ChatCollector::finish() {
  if (data_.rows == 0) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{} holds no examples", data_.file),
                 "expected one JSON object a line, or a list of them"};
  }
  if (data_.examples.empty()) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{}: none of {} row{} holds anything to learn from: no assistant's turn, or all of them of "
                    "weight 0",
                    data_.file, data_.rows, data_.rows == 1 ? "" : "s"),
        "an example ends with the assistant's answer that is to be learnt"};
  }
  warn(left_out_, "is left out: no assistant's turn in it is learnt",
       "are left out: no assistant's turn in them is learnt");
  warn(cut_, "ends with a turn that is not the assistant's: what follows its last answer is cut",
       "end with a turn that is not the assistant's: what follows their last answer is cut");
  warn(duplicates_, "is the same as an earlier one, which is kept", "are the same as an earlier one, which is kept");
  if (!unused_.empty()) {
    std::vector<std::string> names;
    for (const auto& [key, tally] : unused_)
      names.push_back(fmt::format("'{}' ({}{})", key,
                                  tally.count == 1 ? "" : fmt::format("{} times, first: ", tally.count),
                                  place(tally.first)));
    if (more_unused_.count > 0) names.push_back(fmt::format("and others ({} times)", more_unused_.count));
    data_.warnings.push_back(fmt::format("{}: these keys are not used: {}", data_.file, fmt::join(names, ", ")));
  }
  data_.shape = *shape_;
  data_.duplicates = duplicates_.count;
  data_.left_out = left_out_.count;
  data_.cut = cut_.count;
  return std::move(data_);
}

}  // namespace tailor
