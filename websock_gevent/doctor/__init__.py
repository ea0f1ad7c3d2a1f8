"""The doctor: looks at an environment, an application and its gunicorn settings, and says what is to be changed.

A leaf: nothing of the library imports it. It is started by ``python -m websock_gevent doctor`` (`command`), looks at
its own process (`environment`), and has the application loaded in a second one (`probe`), as gunicorn would: patching
cannot be undone, and what an application does when it is imported is its own business. It only says what it can see:
proxies in front, and what a process manager sets, are named as what was not looked at.
"""
