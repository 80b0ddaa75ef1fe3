#include "store/audit_log.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "core/hash.h"
#include "store/json_text.h"
#include "store/names.h"

namespace tailor {
namespace {

constexpr std::size_t kMaxDetails = std::size_t{16} << 10;

std::string no_hash() {
  return std::string(64, '0');
}

/// nlohmann::json keeps its keys sorted.
std::string canonical(const Json& value) {
  return nlohmann::json(value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string next_hash(const std::string& before, std::int64_t seq, std::int64_t at, const std::string& actor,
                      const std::string& action, const std::string& object, const std::string& details) {
  const auto quoted = [](const std::string& text) { return canonical(Json(text)); };
  return sha256_hex(fmt::format(R"({}{{"action":{},"actor":{},"at":{},"details":{},"object":{},"seq":{}}})", before,
                                quoted(action), quoted(actor), at, details, quoted(object), seq));
}

struct Stored {
  std::int64_t seq, at;
  std::string actor, action, object, details, hash;
};

Stored stored_of(const Row& row) {
  return {row.integer(0), row.integer(1), row.text(2), row.text(3), row.text(4), row.text(5), row.text(6)};
}

Result<std::vector<Stored>> read_after(const StoreContext& context, std::int64_t after, std::int64_t limit) {
  TAILOR_TRY(Transaction transaction, context.database.read());
  std::vector<Stored> rows;
  TAILOR_CHECK(transaction.each(
      "SELECT seq, at, actor, action, object, details, hash FROM audit WHERE seq > ? ORDER BY seq LIMIT ?",
      {after, limit}, [&](const Row& row) -> Status {
        rows.push_back(stored_of(row));
        return {};
      }));
  return rows;
}

Result<AuditAnchor> last(Transaction& transaction) {
  AuditAnchor anchor{0, no_hash()};
  TAILOR_CHECK(
      transaction.first("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1", {}, [&](const Row& row) -> Status {
        anchor = {row.integer(0), row.text(1)};
        return {};
      }));
  return anchor;
}

}  // namespace

Result<AuditAnchor> append_audit(Transaction& transaction, std::int64_t at, const AuditEntry& entry) {
  TAILOR_CHECK(check_label(entry.actor, "actor of an audit entry", 256));
  TAILOR_CHECK(check_label(entry.action, "action of an audit entry", 256));
  if (!entry.object.empty()) TAILOR_CHECK(check_label(entry.object, "object of an audit entry", 1024));
  // For ids and sizes, not for content.
  TAILOR_CHECK(json_text(entry.details, "details of an audit entry", kMaxDetails));
  const std::string details = canonical(entry.details);
  TAILOR_TRY(const AuditAnchor before, last(transaction));
  const std::int64_t seq = before.count + 1;
  AuditAnchor head{seq, next_hash(before.hash, seq, at, entry.actor, entry.action, entry.object, details)};
  TAILOR_CHECK(
      transaction.run("INSERT INTO audit(seq, at, actor, action, object, details, hash) VALUES (?, ?, ?, ?, ?, ?, ?)",
                      {seq, at, entry.actor, entry.action, entry.object, details, head.hash}));
  return head;
}

Result<AuditAnchor> AuditLog::append(const AuditEntry& entry) {
  TAILOR_TRY(Transaction transaction, context_.database.write());
  TAILOR_TRY(AuditAnchor head, append_audit(transaction, context_.clock(), entry));
  TAILOR_CHECK(transaction.commit());
  return head;
}

Result<AuditAnchor> AuditLog::head() const {
  TAILOR_TRY(Transaction transaction, context_.database.read());
  return last(transaction);
}

Result<std::vector<AuditRecord>> AuditLog::entries(std::int64_t after, std::int64_t limit) const {
  TAILOR_TRY(const std::vector<Stored> rows, read_after(context_, after, limit));
  std::vector<AuditRecord> records;
  for (const Stored& row : rows) {
    TAILOR_TRY(Json details, parse_json(row.details, fmt::format("details of audit entry {}", row.seq)));
    records.push_back({row.seq, row.at, {row.actor, row.action, row.object, std::move(details)}, row.hash});
  }
  return records;
}

Result<AuditVerdict> AuditLog::verify(const std::optional<AuditAnchor>& anchor) const {
  constexpr std::int64_t kStep = 1000;
  AuditVerdict verdict;
  verdict.head = {0, no_hash()};
  const auto broken = [&](std::int64_t seq, std::string reason) {
    verdict.intact = false;
    verdict.first_broken = seq;
    verdict.reason = std::move(reason);
    return verdict;
  };
  std::int64_t after = std::numeric_limits<std::int64_t>::min();  // numbers below 1 are forged
  while (true) {
    TAILOR_TRY(const std::vector<Stored> rows, read_after(context_, after, kStep));
    for (const Stored& row : rows) {
      const std::int64_t seq = verdict.head.count + 1;
      if (row.seq != seq) return broken(seq, fmt::format("entry {} is missing; entry {} follows", seq, row.seq));
      if (row.hash != next_hash(verdict.head.hash, seq, row.at, row.actor, row.action, row.object, row.details))
        return broken(seq, fmt::format("entry {} does not have the hash of its content and its predecessor", seq));
      if (anchor && anchor->count == seq && anchor->hash != row.hash)
        return broken(seq, fmt::format("entry {} is not the one that the anchor saw", seq));
      verdict.head = {seq, row.hash};
    }
    if (static_cast<std::int64_t>(rows.size()) < kStep) break;
    after = verdict.head.count;
  }
  if (anchor && anchor->count > verdict.head.count) {
    return broken(verdict.head.count + 1, fmt::format("the log ends with entry {}; the anchor saw {} entries",
                                                      verdict.head.count, anchor->count));
  }
  return verdict;
}

}  // namespace tailor
