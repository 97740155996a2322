"""Who may install extensions: whoever sits at this machine. An extension is a program with all the user's rights."""

import ipaddress

from webui.settings import Settings


def why_no_installs(settings: Settings) -> str:
    """Why the page may install and remove no extensions, in one sentence; "" if it may."""
    if not settings.extensions:
        return "Extensions are switched off here. The setting is `extensions` (WEBUI_EXTENSIONS)."
    if not settings.extension_installs:
        return "Installing extensions is switched off here. The setting is `extension_installs`."
    if not is_own_address(settings.host):
        return (
            f"The page is served on {settings.host}, so others can open it; extensions are installed only where "
            "nobody else can. Start with --host 127.0.0.1, or put the extension's folder into "
            f"{settings.extensions_dir} by hand."
        )
    return ""


def is_own_address(host: str) -> bool:
    """Whether `host`, an address or a name, can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]").split("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"
