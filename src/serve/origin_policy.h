#pragma once
/// Which other sites' pages may use the API from a browser (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol):
/// the seam where the widget comes in. Without a policy no other site's page may, nor may it change anything unread.

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/result.h"
#include "serve/http_handler.h"

namespace tailor {

/// Threads: called from any, concurrently; must not block.
class OriginPolicy {
 public:
  virtual ~OriginPolicy() = default;
  virtual bool allows(std::string_view origin) const = 0;  ///< "https://shop.example", as browsers write it
};

/// "https://shop.example", "http://[::1]:3000", also of schemes of other programs ("chrome-extension://…"); without the
/// port that its scheme has anyway. Errors: a path, "*", "null", and what else is no origin.
Result<std::string> parse_origin(std::string_view text);

/// Those that are named.
class ListedOrigins final : public OriginPolicy {
 public:
  /// As parse_origin() gives them.
  explicit ListedOrigins(std::vector<std::string> origins) : origins_(std::move(origins)) {}
  bool allows(std::string_view origin) const override;

 private:
  std::vector<std::string> origins_;
};

/// Whether a page sent it that is not this server's own: one whose Origin differs from Host. Browsers let pages post
/// forms to any address without asking before. Requests without Origin are no page's. Behind what ends TLS and keeps
/// Host, a page of https is the server's own, too.
bool is_of_other_origin(const HttpHead& head);
/// POST, PUT, PATCH, DELETE.
bool changes_state(std::string_view method);

/// The origin that the request names and the policy allows; empty: none.
std::string allowed_origin(const OriginPolicy* policy, const HttpHead& head);
/// Whether a browser asks before it sends a request of another site's page.
bool is_preflight(const HttpHead& head);
HttpResponse preflight_answer(std::string_view origin);
/// What lets that page read an answer.
void let_read(HttpHeaders& headers, std::string_view origin);
/// The same responder, whose answers that page may read.
std::shared_ptr<HttpResponder> let_read(std::shared_ptr<HttpResponder> responder, std::string origin);

}  // namespace tailor
