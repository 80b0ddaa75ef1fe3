/// `tailor audit`: what was done with keys, packages and models, in a chain that shows a change.

#include <fmt/format.h>

#include <charconv>
#include <memory>

#include "apps/tailor/store_options.h"
#include "apps/tailor/verbs.h"

namespace tailor {
namespace {

struct AuditWords {
  std::string data, anchor;
  std::int64_t after = 0;
  bool json = false;
};

Result<std::optional<AuditAnchor>> read_anchor(const std::string& text) {
  if (text.empty()) return std::optional<AuditAnchor>();
  AuditAnchor anchor;
  const std::size_t colon = text.find(':');
  const auto [end, error] = std::from_chars(text.data(), text.data() + std::min(colon, text.size()), anchor.count);
  if (colon == std::string::npos || error != std::errc() || end != text.data() + colon || text.size() - colon != 65)
    return Error{ErrorCode::kInvalidArgument, fmt::format("--anchor {}: expected COUNT:HASH", text),
                 "as `tailor audit verify` printed it"};
  anchor.hash = text.substr(colon + 1);
  return std::optional(anchor);
}

Result<int> verify(const AuditWords& words) {
  TAILOR_TRY(const auto anchor, read_anchor(words.anchor));
  TAILOR_TRY(const auto store, open_store(words.data, true));
  TAILOR_TRY(const AuditVerdict verdict, store->audit().verify(anchor));
  if (words.json) {
    fmt::print("{}\n", dump_json(Json{{"intact", verdict.intact},
                                      {"count", verdict.head.count},
                                      {"hash", verdict.head.hash},
                                      {"first_broken", verdict.first_broken},
                                      {"reason", verdict.reason}},
                                 2));
    return verdict.intact ? 0 : 2;
  }
  if (!verdict.intact) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("the audit log is broken at entry {}: {}", verdict.first_broken, verdict.reason),
                 fmt::format("{} entries before it are intact", verdict.head.count)};
  }
  fmt::print("{} entries, intact; anchor {}:{}\n", verdict.head.count, verdict.head.count, verdict.head.hash);
  return 0;
}

Result<int> list(const AuditWords& words) {
  TAILOR_TRY(const auto store, open_store(words.data, true));
  constexpr std::int64_t kPage = 500;
  for (std::int64_t after = words.after;;) {
    TAILOR_TRY(const auto records, store->audit().entries(after, kPage));
    for (const AuditRecord& record : records) {
      const AuditEntry& entry = record.entry;
      if (words.json)
        fmt::print("{}\n", dump_json(Json{{"seq", record.seq},
                                          {"at", record.at},
                                          {"actor", entry.actor},
                                          {"action", entry.action},
                                          {"object", entry.object},
                                          {"details", entry.details},
                                          {"hash", record.hash}}));
      else
        fmt::print("{:>6}  {}  {:<18} {:<32} {}  {}\n", record.seq, utc(record.at), entry.action, entry.object,
                   entry.actor, entry.details.empty() ? "" : dump_json(entry.details));
      after = record.seq;
    }
    if (records.size() < static_cast<std::size_t>(kPage)) return 0;
  }
}

}  // namespace

void add_audit(CLI::App& app, Invocation& invocation) {
  auto* verb =
      app.add_subcommand("audit", "what was done with keys, packages and models, and whether the record is whole");
  verb->require_subcommand(1);
  verb->footer("Example:  tailor audit verify --anchor 12:5f1c…");
  auto words = std::make_shared<AuditWords>();
  AuditWords& w = *words;
  auto* verify_verb = verb->add_subcommand("verify", "walks the chain of hashes; prints an anchor to keep elsewhere");
  verify_verb->add_option("--anchor", w.anchor, "of an earlier call: shows a chain that was cut or made anew")
      ->type_name("COUNT:HASH");
  verify_verb->callback([&invocation, words] { invocation.run = [words] { return verify(*words); }; });
  auto* list_verb = verb->add_subcommand("list", "the entries, the oldest first");
  list_verb->add_option("--after", w.after, "entries after this number")
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("N");
  list_verb->callback([&invocation, words] { invocation.run = [words] { return list(*words); }; });
  for (auto* sub : {verify_verb, list_verb}) {
    add_data_option(*sub, w.data);
    sub->add_flag("--json", w.json, "as JSON");
  }
}

}  // namespace tailor
