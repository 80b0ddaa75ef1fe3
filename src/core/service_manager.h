#pragma once
/// What starts this process and waits for it: systemd with Type=notify, and others that know its protocol.

#include <string_view>

namespace tailor {

/// Sends `state` ("READY=1") to the socket that $NOTIFY_SOCKET names, sd_notify(3). True if it was sent; without the
/// variable nobody waits.
bool tell_service_manager(std::string_view state);

}  // namespace tailor
